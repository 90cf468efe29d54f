//! What the unit takes away from the daemon, and that everything it needs still works.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use rekeyd_lab::ArcGisOptions;

use crate::machine::PATIENCE;
use crate::stage::{CLOUD_SERVICE, POLICY, PolicyText, SECRETS, SERVICE, Setting, Stage, story, story_in};

#[test]
fn nothing_can_be_written_but_its_own_state_and_no_right_is_left() {
    story(|stage| {
        stage.begin();
        let machine = &stage.machine;
        let pid = machine.show("rekeyd", "MainPID");
        // As root, in the daemon's own view of the file system: what it refuses there it refuses to everybody.
        let in_its_view = |words: &[&str]| machine.run(&[&["nsenter", "-t", &pid, "-m", "--"], words].concat());
        machine.must(&["mkdir", "/var/lib/other"]);
        for place in ["/etc", "/usr", "/usr/bin", "/opt", "/var/log", "/var/lib", "/var/lib/other", "/etc/rekeyd"] {
            let wrote = in_its_view(&["touch", &format!("{place}/written")]);
            assert!(wrote.code != Some(0) && wrote.err.contains("Read-only file system"), "{place}: {wrote:?}");
        }
        for place in ["/var/lib/rekeyd", "/run/rekeyd", "/tmp"] {
            let wrote = in_its_view(&["sh", "-c", &format!("touch {place}/written && rm {place}/written")]);
            assert_eq!(wrote.code, Some(0), "{place}: {wrote:?}");
        }
        for hidden in ["/root", "/home"] {
            let seen = in_its_view(&["ls", "-A", hidden]);
            assert!(seen.code != Some(0) || seen.out.is_empty(), "{hidden}: {seen:?}");
        }
        let as_itself = |words: &[&str]| machine.run(&[&["runuser", "-u", "rekeyd", "--"], words].concat());
        let read = as_itself(&["cat", &format!("{SECRETS}/aws-secret")]);
        assert!(read.err.contains("Permission denied"), "{read:?}");

        let user = machine.must(&["id", "-u", "rekeyd"]).text().to_owned();
        for (field, expected) in [
            ("Uid", [user.as_str(); 4].join("\t").as_str()),
            ("NoNewPrivs", "1"),
            // Calls are filtered.
            ("Seccomp", "2"),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
        ] {
            assert_eq!(machine.of_process(&pid, field), expected, "{field}");
        }
        let limits = machine.must(&["cat", &format!("/proc/{pid}/limits")]).out;
        let core =
            limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("there is such a limit");
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
        // The daemon forbids them itself too.
        assert_eq!(
            (machine.show("rekeyd", "LimitCORE"), machine.show("rekeyd", "LimitCORESoft")),
            ("0".into(), "0".into())
        );
        assert_eq!(machine.show("rekeyd", "MemorySwapMax"), "0");
        let swap = machine.run(&["cat", "/sys/fs/cgroup/system.slice/rekeyd.service/memory.swap.max"]);
        match swap.code {
            Some(0) => assert_eq!(swap.text(), "0"),
            _ => println!(
                "NOT SEEN: the swap's limit in the kernel, since this host counts memory in groups of version 1"
            ),
        }
        // Both are searched for secrets at the end, with all that was printed.
        machine.must(&["cat", &format!("/proc/{pid}/environ"), &format!("/proc/{pid}/cmdline")]);
        stage.rotate();
    });
}

#[test]
fn the_exposure_is_a_sixth_of_what_it_could_be() {
    story(|stage| {
        for (unit, limit) in [("rekeyd.service", 1.5), ("rekeyd-rotate@x.service", 1.5)] {
            let said = stage.machine.must(&["systemd-analyze", "security", "--no-pager", unit]).out;
            let line = said.lines().find(|line| line.contains("Overall exposure level")).expect("it says so");
            let score = line.split_once(": ").and_then(|(_, rest)| rest.split(' ').next());
            let score: f32 =
                score.and_then(|score| score.parse().ok()).unwrap_or_else(|| panic!("no number in {line}"));
            // Past the capture of what tests print: it is asked for.
            let version = stage.machine.version();
            let _ = writeln!(std::io::stderr().lock(), "systemd {version}: exposure of {unit}: {score}");
            assert!(score <= limit, "{said}");
        }
        stage.begin();
        stage.rotate();
    });
}

#[test]
fn tls_and_names_work_and_the_status_is_served() {
    let arcgis = ArcGisOptions { tls: true, ..ArcGisOptions::default() };
    story_in(Setting { arcgis, ..Setting::default() }, |stage| {
        // One name from a server of names, one from the file.
        let server = names("gis.example.com");
        stage.machine.write("/etc/resolv.conf", 0o644, format!("nameserver {server}\n").as_bytes());
        stage.machine.write("/etc/hosts", 0o644, b"127.0.0.1 localhost\n");
        let ca = stage.arcgis.ca_pem().expect("it speaks TLS");
        stage.machine.write("/etc/rekeyd/gis-ca.pem", 0o644, ca.as_bytes());
        let text = PolicyText { arcgis: r#"ca_file = "/etc/rekeyd/gis-ca.pem""#.into(), ..PolicyText::default() };
        let text = stage.policy_of(&text);
        let named = text
            .replace("admin_url = \"https://127.0.0.1", "admin_url = \"https://gis.example.com")
            .replace("portal_url = \"https://127.0.0.1", "portal_url = \"https://localhost");
        assert_ne!(text, named);
        stage.machine.write(POLICY, 0o644, named.as_bytes());
        stage.begin();
        stage.rotate();
        stage.assert_one_live_key(1);

        let metrics = get(stage, "/metrics");
        let counted = format!("rekeyd_rotations_total{{service=\"{SERVICE}\",outcome=\"done\"}} 1");
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains(&counted), "{metrics}");
        assert!(get(stage, "/healthz").starts_with("HTTP/1.1 200"));
        assert!(get(stage, "/readyz").starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn files_are_targets_with_the_drop_ins_of_the_page() {
    story(|stage| {
        let machine = &stage.machine;
        machine.must(&["groupadd", "--system", "gis"]);
        machine.must(&["mkdir", "/etc/gis"]);
        machine.must(&["chown", "rekeyd:rekeyd", "/etc/gis"]);
        let policy = |owner: &str| {
            let more = format!(
                r#"
  [[service.target]]
  kind      = "file"
  path      = "/etc/gis/store.env"
  format    = "env"
  mode      = "0640"
  owner     = "{owner}"
  on_change = ["/usr/bin/test", "-s", "/etc/gis/store.env"]
"#
            );
            stage.policy(&PolicyText { more, ..PolicyText::default() });
        };
        policy("rekeyd:rekeyd");
        stage.begin();
        // As the unit is, the place cannot be written, and no key is made that could not be handed over.
        let refused = stage.rekeyd(&["rotate", SERVICE, "--wait"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(stage.status()["message"].to_string().contains("/etc/gis"), "{}", stage.status());
        assert_eq!(stage.aws.mints(), 0);

        for (owner, paragraph) in [
            ("rekeyd:rekeyd", "**A file target**"),
            ("rekeyd:gis", "**With an `owner` or a group**"),
            ("root:gis", "**With an `owner` that is another user**"),
        ] {
            policy(owner);
            stage.drop_in(&drop_in_of(paragraph));
            machine.must(&["systemctl", "restart", "rekeyd"]);
            stage.rekeyd(&["retry", SERVICE]);
            machine.wait("rest", |_| (stage.status()["state"] == "idle").then_some(()));
            stage.rotate();
            let (id, secret) = stage.arcgis.held_key(CLOUD_SERVICE).expect("it holds one");
            let file = "/etc/gis/store.env";
            // Not by a command: what those print is searched for secrets.
            let text = std::fs::read_to_string(machine.path(file)).expect("it is there");
            assert!(text.contains(&id) && text.contains(&secret), "the file holds another key");
            let whose = machine.must(&["stat", "-c", "%U:%G %a", file]);
            assert_eq!(whose.text(), format!("{owner} 640"));
        }
        machine.must(&["rm", "/etc/gis/store.env"]);
    });
}

#[test]
fn programs_are_targets_with_a_drop_in_of_their_own() {
    story(|stage| {
        stage.machine.must(&["mkdir", "/var/lib/gis-tool"]);
        stage.machine.must(&["chown", "rekeyd:rekeyd", "/var/lib/gis-tool"]);
        stage.machine.write("/usr/local/lib/rekeyd/mapping", 0o755, MAPPING.as_bytes());
        let more = r#"
  [[service.target]]
  kind    = "command"
  program = "/usr/local/lib/rekeyd/mapping"
  args    = ["/var/lib/gis-tool/id"]
"#;
        stage.policy(&PolicyText { more: more.to_owned(), ..PolicyText::default() });
        stage.drop_in(&drop_in_of("**Programs of your own**"));
        stage.begin();
        stage.rotate();
        let held = stage.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id);
        assert_eq!(Some(stage.machine.must(&["cat", "/var/lib/gis-tool/id"]).text().to_owned()), held);
    });
}

/// A target of kind `command` that remembers the key's id, for `/bin/sh`.
const MAPPING: &str = r#"#!/bin/sh
set -e
read -r request
case $request in
*'"do":"push"'*)
    id=${request#*'"id":"'}
    echo "${id%%'"'*}" >"$1"
    echo '{"rekeyd":1,"ok":{}}' ;;
*'"do":"inspect"'* | *'"do":"read"'*)
    if [ -s "$1" ]; then reading="{\"id\":\"$(cat "$1")\"}"; else reading='"nothing"'; fi
    echo "{\"rekeyd\":1,\"ok\":{\"reading\":$reading}}" ;;
*) exit 1 ;;
esac
"#;

/// The drop-in that docs/systemd.md gives in this paragraph.
fn drop_in_of(paragraph: &str) -> String {
    let text = include_str!("../../docs/systemd.md").split(paragraph).nth(1).expect("there is such a paragraph");
    let block = text.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("there is a drop-in").to_owned()
}

/// What the status listener answers.
fn get(stage: &Stage, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", stage.port)).expect("the listener is there");
    stream.set_read_timeout(Some(PATIENCE)).expect("that is a time");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}

/// A server of names that knows one: 127.0.0.1. On an address of its own, for servers of names have one port. It goes with the process.
fn names(known: &'static str) -> Ipv4Addr {
    let bound = (1..=254).find_map(|last| {
        let address = Ipv4Addr::new(127, 53, u8::try_from(std::process::id() % 250).expect("below 250"), last);
        UdpSocket::bind(SocketAddr::from((address, 53))).ok().map(|socket| (address, socket))
    });
    let (address, socket) = bound.expect("root may have port 53 of some address");
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut packet) {
            if let Some(answer) = answer(&packet[..length], known) {
                let _ = socket.send_to(&answer, asker);
            }
        }
    });
    address
}

/// RFC 1035, as far as it takes: one question, and an address where that was asked of the name we know.
fn answer(packet: &[u8], known: &str) -> Option<Vec<u8>> {
    let (header, mut rest) = packet.split_at_checked(12)?;
    let mut name = Vec::new();
    loop {
        let (length, after) = rest.split_first()?;
        if *length == 0 {
            rest = after;
            break;
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        name.push(String::from_utf8_lossy(label).into_owned());
        rest = after;
    }
    let (kind, _) = rest.split_at_checked(4)?;
    let is_known = name.join(".").eq_ignore_ascii_case(known);
    let has_address = is_known && kind[..2] == [0, 1];
    let mut answer = header[..2].to_vec();
    // An answer, recursion was wanted and can be had; without an error, or no such name.
    answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    answer.extend(&packet[12..packet.len() - rest.len() + 4]);
    if has_address {
        // The name of the question, an address of the internet, for 0 seconds, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}
