//! The other side of a wire: a peer on loopback that answers byte for byte as told and notes what it was asked, and a proxy.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// When every answer of the peer is dated.
const DATE: &str = "Sat, 21 Nov 2026 12:00:00 GMT";

/// What the peer does with one request.
pub(super) enum Reply {
    /// Answers and keeps the connection open.
    Say(u16, String),
    /// Answers half of what it announces, then closes.
    Break(String),
    /// Announces no length and closes after this, as some middleboxes do: only the text shows that it is cut.
    Cut(String),
    /// Closes without a word.
    Close,
    /// Says nothing.
    Hang,
}

/// A peer with a script, and what it saw: the bodies of the requests and how many connections brought them.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<(Vec<String>, usize)>>);

impl Seen {
    pub(super) fn requests(&self) -> Vec<String> {
        self.0.lock().expect("no panic while held").0.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.0.lock().expect("no panic while held").1
    }
}

pub(super) async fn peer(script: Vec<Reply>) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (seen, script) = (Seen::default(), Arc::new(Mutex::new(script.into_iter())));
    let saw = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            saw.0.lock().expect("no panic while held").1 += 1;
            tokio::spawn(serve(stream, script.clone(), saw.clone()));
        }
    });
    (format!("http://{address}"), seen)
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<std::vec::IntoIter<Reply>>>, seen: Seen) {
    while let Some(body) = request(&mut stream).await {
        seen.0.lock().expect("no panic while held").0.push(body);
        let reply = script.lock().expect("no panic while held").next().expect("no more requests than the script has");
        let (status, body, length) = match reply {
            Reply::Say(status, body) => (status, body.clone(), Some(body.len())),
            Reply::Break(body) => (200, body.clone(), Some(body.len() * 2)),
            Reply::Cut(body) => (200, body, None),
            Reply::Close => return,
            Reply::Hang => std::future::pending().await,
        };
        let header = length.map_or("connection: close".to_owned(), |length| format!("content-length: {length}"));
        let answer = format!("HTTP/1.1 {status} X\r\ndate: {DATE}\r\ncontent-type: text/xml\r\n{header}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() || length != Some(body.len()) {
            return;
        }
    }
}

/// One request's line and body; `None` when the other side is done.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(format!("{} {body}", head.lines().next().unwrap_or_default()));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}

/// A proxy that notes whom it should connect to, and closes.
pub(super) async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, asked) = (listener.local_addr().expect("bound"), Arc::new(Mutex::new(Vec::new())));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let line = request(&mut stream).await.unwrap_or_default();
            noted.lock().expect("no panic while held").push(line);
        }
    });
    (format!("http://{address}"), asked)
}
