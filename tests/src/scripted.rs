//! A server that answers as a test says, and notes what it was asked. Stands in where a peer cannot be made to fail as the real one
//! does in the field.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// As text.
    pub body: String,
}

impl Request {
    /// A header's value, by its name in small letters; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    /// The body.
    ///
    /// # Panics
    ///
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("what is sent is JSON")
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
    is_lost: bool,
}

impl Answer {
    /// This status and body.
    pub fn raw(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            delay: Duration::ZERO,
            is_lost: false,
        }
    }

    /// A success with this body.
    pub fn ok(body: &Value) -> Self {
        Self::json(200, body)
    }

    /// This status, and a body of JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, &body.to_string())
    }

    /// The same, so much later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The connection is closed instead.
    #[must_use]
    pub fn lost(self) -> Self {
        Self {
            is_lost: true,
            ..self
        }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The server; it serves until the test's process ends.
#[derive(Debug)]
pub struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by `answer`, which also gets the number of requests before it.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub fn start(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
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

    /// Where it answers, such as `http://127.0.0.1:40123`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it was asked, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until this is so of what it was asked.
    ///
    /// # Panics
    ///
    /// When it is not so within a minute.
    pub fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..6000 {
            if is_so(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it was not asked that within a minute");
    }

    /// How often a path that ends so was asked for.
    pub fn count(&self, end: &str) -> usize {
        let requests = self.requests();
        let counted = requests.iter().filter(|request| request.path.ends_with(end));
        counted.count()
    }
}

fn serve(stream: &TcpStream, noted: &Mutex<Vec<Request>>, answer: &dyn Fn(usize, &Request) -> Answer) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let before = {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push(request.clone());
            noted.len() - 1
        };
        let answer = answer(before, &request);
        std::thread::sleep(answer.delay);
        if answer.is_lost {
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
