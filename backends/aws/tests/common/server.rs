//! A server that answers as a test says, and notes what it was asked. Stands in for KMS and STS where an emulator
//! cannot be made to fail as the real ones do.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
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

    /// `TrentService.Encrypt` for a call of KMS, `sts` for one of STS.
    pub(crate) fn target(&self) -> &str {
        match self.header("x-amz-target") {
            "" => "sts",
            target => target,
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("calls of KMS are JSON")
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) delay: Duration,
}

impl Answer {
    pub(crate) fn ok(body: &Value) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_string(),
            delay: Duration::ZERO,
        }
    }

    pub(crate) fn xml(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            delay: Duration::ZERO,
        }
    }

    /// An error of KMS, in the JSON that KMS speaks.
    pub(crate) fn kms_error(code: &str, message: &str) -> Self {
        let status = if code.contains("Internal") { 500 } else { 400 };
        Self {
            status,
            ..Self::ok(&json!({ "__type": code, "message": message }))
        }
    }

    /// An error of STS, in the XML that STS speaks.
    pub(crate) fn sts_error(status: u16, code: &str, message: &str) -> Self {
        let ns = "https://sts.amazonaws.com/doc/2011-06-15/";
        Self::xml(
            status,
            &format!(
                "<ErrorResponse xmlns=\"{ns}\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
            ),
        )
    }

    /// A session as `action` of STS gives it out, until `expiry` (RFC 3339).
    pub(crate) fn session(action: &str, access_key_id: &str, expiry: &str) -> Self {
        let ns = "https://sts.amazonaws.com/doc/2011-06-15/";
        Self::xml(
            200,
            &format!(
                "<{action}Response xmlns=\"{ns}\"><{action}Result><Credentials><AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t-{access_key_id}</SessionToken><Expiration>{expiry}</Expiration></Credentials></{action}Result></{action}Response>"
            ),
        )
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The server; it serves until the test's process ends.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by `answer`, which also gets the number of requests before it.
    pub(crate) fn start(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream, &noted, &*answer));
            }
        });
        Self { endpoint, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Settings that lead to this server, with attempts enough to see retries and waits that end soon.
    pub(crate) fn settings(&self) -> Value {
        json!({
            "endpoint_url": self.endpoint, "sts_endpoint_url": self.endpoint,
            "access_key_id": "AKIDTEST", "secret_access_key": "secret", "max_attempts": 1,
        })
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

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        line.clear();
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
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
