//! Signatures made with the key of a storage account, both ways, by hand: the stand-in checks with it, the consumers sign with it.
//!
//! Shared Key is written from "Authorize with Shared Key", the two shared access signatures from "Create an account SAS" and "Create a
//! service SAS"; the vectors in the tests are those of Azure's own SDK. Shared Key Lite, stored access policies and user delegation
//! are not offered.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::form;
use crate::http::Request;

/// From this version on the string to sign of either SAS has a line for the encryption scope.
const ENCRYPTION_SCOPE_SINCE: &str = "2020-12-06";

/// The signature of a text. `None` where the key is not Base64, and so no key of an account.
pub(crate) fn sign(key: &str, text: &str) -> Option<String> {
    let key = STANDARD.decode(key).ok()?;
    Some(STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes())))
}

/// What of a request is signed.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// As sent, still escaped.
    pub(crate) path: &'a str,
    /// As sent, still escaped.
    pub(crate) query: &'a str,
    /// Names in lower case, each once.
    pub(crate) headers: Vec<(String, String)>,
}

impl<'a> Signed<'a> {
    pub(crate) fn of(request: &'a Request) -> Self {
        let value = |name| {
            let all = request.headers.get_all(name).iter();
            all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<Vec<_>>().join(",")
        };
        let headers = request.headers.keys().map(|name| (name.to_string(), value(name))).collect();
        Self { method: request.method.as_str(), path: &request.path, query: &request.query, headers }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// The string to sign of version 2015-02-21 and later.
    pub(crate) fn string_to_sign(&self, account: &str) -> String {
        let lines = [
            self.method,
            self.header("content-encoding"),
            self.header("content-language"),
            // A length of zero is left out since that version.
            Some(self.header("content-length")).filter(|length| *length != "0").unwrap_or_default(),
            self.header("content-md5"),
            self.header("content-type"),
            // Where both are sent, x-ms-date is the one that counts, and this line is empty.
            if self.header("x-ms-date").is_empty() { self.header("date") } else { "" },
            self.header("if-modified-since"),
            self.header("if-match"),
            self.header("if-none-match"),
            self.header("if-unmodified-since"),
            self.header("range"),
        ];
        format!("{}\n{}{}", lines.join("\n"), self.canonicalized_headers(), self.canonicalized_resource(account))
    }

    fn canonicalized_headers(&self) -> String {
        let mut headers: Vec<_> = self.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
        headers.sort();
        let line = |(name, value): &(String, String)| {
            let value: Vec<&str> = value.split_ascii_whitespace().collect();
            format!("{name}:{}\n", value.join(" "))
        };
        headers.into_iter().map(line).collect()
    }

    /// The account and the path, escaped as it was sent, then every parameter, unescaped. Where the address has the account in its
    /// path, as azurite's and ours, the account stands here twice: Azure's SDKs sign so, and azurite checks so.
    fn canonicalized_resource(&self, account: &str) -> String {
        let mut pairs: Vec<(String, String)> =
            form::pairs(self.query).into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        pairs.sort();
        let mut resource = format!("/{account}{}", self.path);
        let mut last = None;
        for (name, value) in pairs {
            // Several values of one name stand in one line, sorted.
            if last.as_ref() == Some(&name) {
                resource.push_str(&format!(",{value}"));
            } else {
                resource.push_str(&format!("\n{name}:{value}"));
            }
            last = Some(name);
        }
        resource
    }
}

/// A shared access signature, as it came in a query.
pub(crate) struct Sas {
    /// Unescaped.
    pairs: Vec<(String, String)>,
}

impl Sas {
    /// `None` where nothing is signed.
    pub(crate) fn read(query: &str) -> Option<Self> {
        let pairs = form::pairs(query);
        form::value(&pairs, "sig").is_some().then_some(Self { pairs })
    }

    /// Empty where it is not there, as it is signed.
    pub(crate) fn get(&self, name: &str) -> &str {
        form::value(&self.pairs, name).unwrap_or_default()
    }

    /// Of the account; otherwise of a container or a blob.
    pub(crate) fn is_of_account(&self) -> bool {
        !self.get("ss").is_empty() || !self.get("srt").is_empty()
    }

    /// What the signature must be of: the fields as sent, and the resource that is asked for, whatever the token was made for.
    pub(crate) fn string_to_sign(&self, account: &str, container: &str, blob: &str) -> String {
        let scope = (self.get("sv") >= ENCRYPTION_SCOPE_SINCE).then_some("ses");
        let texts = |names: &[&str]| names.iter().map(|name| self.get(name).to_owned()).collect::<Vec<_>>();
        if self.is_of_account() {
            let names = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"].into_iter().chain(scope);
            let lines = [vec![account.to_owned()], texts(&names.collect::<Vec<_>>())].concat();
            // The last line is ended too.
            return lines.join("\n") + "\n";
        }
        let blob = if self.get("sr") == "b" { format!("/{blob}") } else { String::new() };
        let resource = format!("/blob/{account}/{container}{blob}");
        let names = ["si", "sip", "spr", "sv", "sr", "snapshot"].into_iter().chain(scope);
        let names: Vec<&str> = names.chain(["rscc", "rscd", "rsce", "rscl", "rsct"]).collect();
        [texts(&["sp", "st", "se"]), vec![resource], texts(&names)].concat().join("\n")
    }

    /// The query of a SAS with these fields and, where it is not of the account, for this container.
    ///
    /// # Panics
    /// If the key is not Base64.
    pub(crate) fn make(fields: &[(&str, &str)], (account, key): (&str, &str), container: &str) -> String {
        let pairs = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = Self { pairs }.string_to_sign(account, container, "");
        let signature = sign(key, &text).expect("the keys of accounts are Base64");
        let signed = fields.iter().copied().chain([("sig", signature.as_str())]);
        signed.map(|(name, value)| format!("{name}={}", form::encode(value))).collect::<Vec<_>>().join("&")
    }
}

/// Requests and tokens that Azure's SDK for Python made for one key at one time. Where a token's version is not the SDK's own
/// (2019-02-02 of 2.1.0, 2026-10-06 of 12.31.1), its `x_ms_version` was set.
#[cfg(test)]
pub(crate) mod vectors {
    pub(crate) const ACCOUNT: &str = "gisstore";
    pub(crate) const CONTAINER: &str = "tiles";
    pub(crate) const BLOB: &str = "a b/c+d.txt";
    pub(crate) const KEY: &str =
        "+wIJEBceJSwzOkFIT1ZdZGtyeYCHjpWco6qxuL/GzdTb4unw9/4FDBMaISgvNj1ES1JZYGdudXyDipGYn6attA==";
    /// `x-ms-date` of the requests; the tokens are good then too.
    pub(crate) const DATE: &str = "Sun, 22 Nov 2026 15:00:00 GMT";

    /// Names and values, without `x-ms-date`.
    type Headers = &'static [(&'static str, &'static str)];

    /// By azure-storage-blob 12.31.1 with `SharedKeyCredentialPolicy`: method, path and query of an address with the account in its
    /// path, headers, signature.
    pub(crate) const REQUESTS: [(&str, &str, Headers, &str); 4] = [
        (
            "GET",
            "/gisstore/tiles?restype=container&comp=list&prefix=F%C3%BC%C3%9Fe%20%26%20mehr%2F%2Bx&maxresults=1",
            &[
                ("x-ms-version", "2026-10-06"),
                ("x-ms-client-request-id", "a676c772-e688-11f1-8ddb-02fc00000001"),
                ("accept", "application/xml"),
            ],
            "mnA2/PTYaUPmZHPx+8BKmdAo0Ai92zLlfUb+hCjoZZM=",
        ),
        (
            "HEAD",
            "/gisstore/tiles/a%20b/c%2Bd.txt",
            &[
                ("x-ms-version", "2026-10-06"),
                ("x-ms-client-request-id", "a676ef36-e688-11f1-8ddb-02fc00000001"),
                ("accept", "application/xml"),
            ],
            "Kkq5QcsGBWbslKLn1gAUYm639OVQVJWyalED8UExGzQ=",
        ),
        (
            "GET",
            "/gisstore/tiles/a%20b/c%2Bd.txt",
            &[
                ("x-ms-version", "2026-10-06"),
                ("x-ms-client-request-id", "a677b894-e688-11f1-8ddb-02fc00000001"),
                ("x-ms-range", "bytes=0-33554431"),
            ],
            "i16YXueT2UWT9+b2vRMV5VKAEv9y0w07MZ18VYeHI9o=",
        ),
        (
            "GET",
            "/gisstore/?comp=list&include=",
            &[
                ("x-ms-version", "2025-01-05"),
                ("x-ms-client-request-id", "a677d7fc-e688-11f1-8ddb-02fc00000001"),
                ("accept", "application/xml"),
            ],
            "Yu7ATVBqQ4kZi8OrpiVNTxLCiOQ168yDo/xXxMXqyNw=",
        ),
    ];

    /// The same SDK for a host of the account's own: there the account stands once.
    pub(crate) const OF_HOST: (&str, Headers, &str) = (
        "/tiles?restype=container&comp=list",
        &[("x-ms-version", "2019-12-12"), ("x-ms-client-request-id", "a677f9c6-e688-11f1-8ddb-02fc00000001")],
        "gcmyx/enW3Jfn10D09OjLEpv63i5EK+upuzHnMc0s8w=",
    );

    /// Of the account. By azure-storage-blob 2.1.0 for the first three versions, by 12.31.1 for the others: between them the line for
    /// the encryption scope came.
    pub(crate) const ACCOUNT_SAS: [&str; 7] = [
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2018-11-09&ss=b&srt=sco\
         &sig=dMMD/HKelAXVfduNa7BJEc8VdMOCVwKJTHofvONDvas%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2019-02-02&ss=b&srt=sco\
         &sig=tYzZQdp3PpgzDUWNm9v2aLU3CqF8ntyIFLseZO5Qs%2Bo%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2020-10-02&ss=b&srt=sco\
         &sig=5/3hlmxPZKuScm5hSZZr9Vd5YBY4bZfyPIw8jpBG3GY%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2020-12-06&ss=b&srt=sco\
         &sig=XbRsJvT0pTG1glIlbqFc%2BwPz7xRzC0i0y9uHyvNchIc%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2025-01-05&ss=b&srt=sco\
         &sig=vRlXRv4nW8PanEq%2B%2BOVnrlFrwVaGR%2BlvA/siXxSXU24%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rwdlacupiytfx&sip=127.0.0.1-127.0.0.9&spr=https%2Chttp\
         &sv=2025-01-05&ss=bqtf&srt=sco&ses=scope-1&sig=V0HFGjz1H0hLiXWomUryXYEIBr4lTARXjQXIfPOVqrc%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2026-10-06&ss=b&srt=sco\
         &sig=HIgY6XQ6Pyl6JMn/rvC8xDYOrYKFCCMVVqDZNM9DaeQ%3D",
    ];

    /// Of the container, by the same two.
    pub(crate) const CONTAINER_SAS: [&str; 7] = [
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2018-11-09&sr=c&rsct=text/plain\
         &sig=1caSj/RTAr8H1yBCoH47O%2BmQeW9108jdo16sXpUCOno%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2019-02-02&sr=c&rsct=text/plain\
         &sig=0vfc%2BSKpFhy5y3ET2c/73Ne%2BFAd4auJa4Uy4Gq4sWuo%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2020-10-02&sr=c&rsct=text/plain\
         &sig=g68hEFW5vV6KWKFoyZHG/3IO63MhIg4jCbjiGismtM0%3D",
        "se=2027-02-01T00%3A00%3A00Z&sp=rl&sv=2020-12-06&sr=c&sig=qM6nNm50BKCKzy5gNQ7v%2BAkxQZwgjlB3wmoiwXCXKLA%3D",
        "se=2027-02-01T00%3A00%3A00Z&sp=rl&sv=2025-01-05&sr=c&sig=fu/37IY1cQukFbM%2B7LZjdAWqgDNU0/BpZMRlEizgCVM%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&sip=127.0.0.1&spr=https&sv=2025-01-05&sr=c&rscc=no-cache\
         &rscd=inline&rsce=gzip&rscl=de&rsct=text/plain%3B%20charset%3Dutf-8&ses=scope-1\
         &sig=6OrikzgbusG5qUEkOnEtEFcjXf9x36a3x26Z1NLgqDQ%3D",
        "se=2027-02-01T00%3A00%3A00Z&sp=rl&sv=2026-10-06&sr=c&sig=eROyz9pc2PHA4BPbEe/Yxp3d/JKE8axcyxJ%2Bl5v2ORc%3D",
    ];

    /// Of the blob, by the same two.
    pub(crate) const BLOB_SAS: [&str; 4] = [
        "se=2027-02-01T00%3A00%3A00Z&sp=r&sv=2018-11-09&sr=b&sig=OCxnAQjb9jU1yF6YHU75oZKjVTOjKcHjRwIM0UPrsBM%3D",
        "se=2027-02-01T00%3A00%3A00Z&sp=r&sv=2019-02-02&sr=b&sig=ZG%2BfqWLuIsii8463R3hUBHvXSk0kbvp1pfYdY8tOFZE%3D",
        "se=2027-02-01T00%3A00%3A00Z&sp=r&sv=2020-12-06&sr=b&sig=kQnFgUooAU2tIz0T6lZzS6lWDfcV%2BR6tWFgtYT0vSXg%3D",
        "se=2027-02-01T00%3A00%3A00Z&sp=r&sv=2025-01-05&sr=b&sig=BkQb226w6WPXZSjWBeFj/Vn7fO38b0GwJUtCANnmcjM%3D",
    ];
}

#[cfg(test)]
mod tests {
    use super::vectors::*;
    use super::*;

    fn signed<'a>(method: &'a str, address: &'a str, headers: &[(&str, &str)]) -> Signed<'a> {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let headers = headers.iter().chain(&[("x-ms-date", DATE)]);
        let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Signed { method, path, query, headers }
    }

    #[test]
    fn requests_are_signed_as_azures_sdk_signs_them() {
        for (method, address, headers, signature) in REQUESTS {
            let text = signed(method, address, headers).string_to_sign(ACCOUNT);
            assert_eq!(sign(KEY, &text).as_deref(), Some(signature), "{text}");
        }
        let (address, headers, signature) = OF_HOST;
        let text = signed("GET", address, headers).string_to_sign(ACCOUNT);
        assert_eq!(sign(KEY, &text).as_deref(), Some(signature), "{text}");
    }

    #[test]
    fn tokens_are_signed_as_azures_sdk_signs_them() {
        for query in ACCOUNT_SAS.iter().chain(&CONTAINER_SAS).chain(&BLOB_SAS) {
            let sas = Sas::read(query).expect("it is signed");
            let text = sas.string_to_sign(ACCOUNT, CONTAINER, BLOB);
            assert_eq!(sign(KEY, &text).as_deref(), Some(sas.get("sig")), "{query}: {text}");
        }
    }

    /// "Authorize with Shared Key": the length of nothing is nothing, the shorter date gives way, spaces are one, values of one name
    /// stand together.
    #[test]
    fn the_odd_cases_are_those_of_the_document() {
        let headers = [("content-length", "0"), ("date", "yesterday"), ("x-ms-b", " two   spaces "), ("x-ms-a", "1")];
        let text = signed("GET", "/c?Include=b&include=a&comp=", &headers).string_to_sign("acct");
        let dated = format!("x-ms-a:1\nx-ms-b:two spaces\nx-ms-date:{DATE}\n");
        assert_eq!(text, format!("GET\n\n\n\n\n\n\n\n\n\n\n\n{dated}/acct/c\ncomp:\ninclude:a,b"));
        let longer = Signed {
            method: "PUT",
            path: "/c",
            query: "",
            headers: vec![("content-length".into(), "7".into()), ("date".into(), "now".into())],
        };
        assert_eq!(longer.string_to_sign("acct"), "PUT\n\n\n7\n\n\nnow\n\n\n\n\n\n/acct/c");
    }

    #[test]
    fn what_is_made_here_is_read_here() {
        let query = Sas::make(
            &[("sp", "rl"), ("se", "2027-02-01T00:00:00Z"), ("sv", "2025-01-05"), ("sr", "c")],
            (ACCOUNT, KEY),
            CONTAINER,
        );
        assert!(query.ends_with("&sig=fu%2F37IY1cQukFbM%2B7LZjdAWqgDNU0%2FBpZMRlEizgCVM%3D"), "{query}");
        assert_eq!(sign("not Base64", "text"), None);
    }
}
