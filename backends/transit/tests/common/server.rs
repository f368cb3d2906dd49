//! A server that answers as a test says, and notes what it was asked. Stands in where a real one cannot be made to fail as it
//! does in the field.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("what is sent is JSON")
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
    /// The connection is closed instead.
    lost: bool,
}

impl Answer {
    pub(crate) fn raw(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            delay: Duration::ZERO,
            lost: false,
        }
    }

    pub(crate) fn ok(body: &Value) -> Self {
        Self::raw(200, &body.to_string())
    }

    pub(crate) fn errors(status: u16, errors: &[&str]) -> Self {
        Self::raw(status, &json!({ "errors": errors }).to_string())
    }

    /// A login or renewal that succeeded.
    pub(crate) fn auth(token: &str, seconds: u64, renewable: bool) -> Self {
        Self::ok(
            &json!({ "auth": { "client_token": token, "lease_duration": seconds, "renewable": renewable } }),
        )
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn lost(self) -> Self {
        Self { lost: true, ..self }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Transit as it should be, for any key: what was wrapped is [`KEY`](super::KEY).
pub(crate) fn transit(request: &Request) -> Answer {
    if request.path.contains("/encrypt/") {
        Answer::ok(&json!({ "data": { "ciphertext": "vault:v3:AAAA", "key_version": 3 } }))
    } else if request.path.contains("/decrypt/") {
        Answer::ok(&json!({ "data": { "plaintext": STANDARD.encode(super::KEY) } }))
    } else if request.path.ends_with("/lookup-self") {
        Answer::ok(&json!({ "data": { "ttl": 3600, "renewable": true } }))
    } else {
        panic!("{} is beyond the least-privilege grant", request.path)
    }
}

/// The server; it serves until the test's process ends.
pub(crate) struct Server {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by `answer`, which also gets the number of requests before it.
    pub(crate) fn start(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream, &noted, &*answer));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How often a path that ends so was asked for.
    pub(crate) fn count(&self, end: &str) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.path.ends_with(end))
            .count()
    }
}

fn serve(stream: &TcpStream, noted: &Mutex<Vec<Request>>, answer: &dyn Fn(usize, &Request) -> Answer) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let before = {
            let mut noted = noted.lock().unwrap();
            noted.push(request.clone());
            noted.len() - 1
        };
        let answer = answer(before, &request);
        std::thread::sleep(answer.delay);
        if answer.lost {
            return;
        }
        let mut head = format!(
            "HTTP/1.1 {} Said\r\ncontent-length: {}\r\n",
            answer.status,
            answer.body.len()
        );
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut writer = stream;
        if writer
            .write_all(format!("{head}\r\n{}", answer.body).as_bytes())
            .is_err()
        {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap_or(0))];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
