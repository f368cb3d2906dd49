//! Answers: rooms, messages, errors, and structs that are not as they are now.

use std::time::{Duration, Instant};

use keystead_backend::{Context, ErrorCode, KeyInstance, Wrapped, abi};
use keystead_loader::probe::{Answer, Given, ProbedKey, Size, Struct};

use super::interface::overruns;
use crate::bench::{Bench, GRACE, call};
use crate::inside::{Checked, Stop, fail};

/// Polled so often.
const POLLS: u32 = 50;

pub(super) fn status(bench: &Bench) -> Checked {
    let key = bench.open()?;
    let ask = || {
        key.status(&call())
            .map_err(|error| Stop::Failed(format!("its status: {error}")))
    };
    ask()?;
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let wrapped = bench.round_trip(&key, &context, &plaintext)?;
    let status = ask()?;
    if !status.key_id.is_empty() && status.key_id != wrapped.key_id {
        fail!(
            "the status says the key id {:?} after a wrap that said {:?}: one of the two is a guess",
            status.key_id,
            wrapped.key_id
        );
    }
    let began = Instant::now();
    for _ in 0..POLLS {
        ask()?;
    }
    let each = began.elapsed() / POLLS;
    if each > Duration::from_millis(500) {
        fail!(
            "a status takes {} ms: it is to be cheap, since it is polled",
            each.as_millis()
        );
    }
    bench.opens(&key, &context, &wrapped, &plaintext)?;
    Ok(if status.key_id.is_empty() {
        vec!["its status names no key id, as with a grant that does not tell".into()]
    } else {
        Vec::new()
    })
}

/// What is tried with one wrapped key.
struct Tried {
    key: std::sync::Arc<ProbedKey>,
    context: Context,
    plaintext: Vec<u8>,
    wrapped: Wrapped,
}

impl Tried {
    fn new(bench: &Bench) -> Checked<Self> {
        let key = bench.open()?;
        let (context, plaintext) = (bench.context(), bench.plaintext(32));
        let wrapped = bench.round_trip(&key, &context, &plaintext)?;
        Ok(Self {
            key,
            context,
            plaintext,
            wrapped,
        })
    }

    fn wrap(&self, given: &Given) -> Checked<Answer> {
        self.key
            .wrap_as(given, &self.context, &self.plaintext)
            .map_err(unfit)
    }

    fn unwrap(&self, given: &Given) -> Checked<Answer> {
        self.key
            .unwrap_as(given, &self.context, &self.wrapped)
            .map_err(unfit)
    }

    fn unwrap_damaged(&self, given: &Given) -> Checked<Answer> {
        let mut damaged = self.wrapped.clone();
        for byte in &mut damaged.blob {
            *byte ^= 0x55;
        }
        self.key.unwrap_as(given, &self.context, &damaged).map_err(unfit)
    }
}

fn unfit(error: keystead_backend::BackendError) -> Stop {
    Stop::NotChecked(format!("the tool's own context: {error}"))
}

pub(super) fn rooms(bench: &Bench) -> Checked {
    let tried = Tried::new(bench)?;
    let limits = bench.description().limits;
    let only = |output: usize, room: usize| {
        let mut rooms = vec![None; output];
        rooms.push(Some(room));
        Given {
            rooms,
            ..Given::default()
        }
    };
    for (output, (name, described)) in [
        ("blob", limits.blob_max_bytes),
        ("key id", limits.key_id_max_bytes),
        ("metadata", limits.metadata_max_bytes),
    ]
    .into_iter()
    .enumerate()
    {
        let described = described as usize;
        for room in rooms_of(bench, described) {
            let how = format!("wrap, with {room} bytes of room for the {name},");
            judge(&tried.wrap(&only(output, room))?, output, described, &how)?;
            if bench.description().capabilities.rewrap {
                let how = format!("rewrap, with {room} bytes of room for the {name},");
                let answer = tried
                    .key
                    .rewrap_as(&only(output, room), &tried.context, &tried.wrapped)
                    .map_err(unfit)?;
                if let Some(answer) = answer {
                    judge(&answer, output, described, &how)?;
                }
            }
        }
    }
    let described = limits.plaintext_max_bytes as usize;
    for room in rooms_of(bench, described) {
        let answer = tried.unwrap(&only(0, room))?;
        judge(
            &answer,
            0,
            described,
            &format!("unwrap, with {room} bytes of room,"),
        )?;
        if answer.code == abi::OK && answer.outputs[0].bytes != tried.plaintext {
            fail!("unwrap, with {room} bytes of room, answers other bytes");
        }
    }
    for room in rooms_of(bench, limits.key_id_max_bytes as usize) {
        let how = format!("status, with {room} bytes of room for the key id,");
        judge(
            &tried.key.status_as(&only(0, room)),
            0,
            limits.key_id_max_bytes as usize,
            &how,
        )?;
    }
    for room in rooms_of(bench, abi::MESSAGE_MAX as usize) {
        let how = format!("status, with {room} bytes of room for the detail,");
        judge(
            &tried.key.status_as(&only(1, room)),
            1,
            abi::MESSAGE_MAX as usize,
            &how,
        )?;
    }
    // With no room for anything it says of each output how much it needs.
    let none = Given {
        rooms: vec![Some(0); 3],
        ..Given::default()
    };
    judge(
        &tried.wrap(&none)?,
        0,
        limits.blob_max_bytes as usize,
        "wrap, without any room,",
    )?;
    bench.opens(&tried.key, &tried.context, &tried.wrapped, &tried.plaintext)?;
    Ok(Vec::new())
}

/// Rooms up to what is described, and one that is larger.
fn rooms_of(bench: &Bench, described: usize) -> Vec<usize> {
    let mut rooms = bench.sizes(described);
    rooms.push(described + 4096);
    rooms
}

fn judge(answer: &Answer, output: usize, described: usize, how: &str) -> Checked<()> {
    overruns(answer, how)?;
    for written in &answer.outputs {
        if answer.code == abi::OK && written.len > written.capacity as u64 {
            fail!(
                "{how} succeeds and says that it wrote {} bytes of {}",
                written.len,
                written.name
            );
        }
    }
    let asked = &answer.outputs[output];
    match answer.code {
        abi::OK => Ok(()),
        abi::BUFFER_TOO_SMALL if asked.capacity >= described => {
            fail!("{how} answers BUFFER_TOO_SMALL: that is all the room that it describes")
        }
        abi::BUFFER_TOO_SMALL if asked.len <= asked.capacity as u64 || asked.len > described as u64 => fail!(
            "{how} answers BUFFER_TOO_SMALL and that it needs {} bytes, of the {described} that it describes",
            asked.len
        ),
        abi::BUFFER_TOO_SMALL => match &answer.said {
            Some(said) if said.code != answer.code => {
                fail!(
                    "{how} answers BUFFER_TOO_SMALL and writes code {} into the error",
                    said.code
                )
            }
            _ => Ok(()),
        },
        code => fail!(
            "{how} answers code {code} ({}); it is BUFFER_TOO_SMALL or OK",
            reason(answer)
        ),
    }
}

fn reason(answer: &Answer) -> String {
    answer
        .said
        .as_ref()
        .map(|said| String::from_utf8_lossy(&said.message).into_owned())
        .unwrap_or_default()
}

pub(super) fn messages(bench: &Bench) -> Checked {
    let tried = Tried::new(bench)?;
    for room in (0..=80).chain([100, 127, 128, 255, 256, 1023, 1024, 4096]) {
        let given = Given {
            message_room: room,
            ..Given::default()
        };
        let answer = tried.unwrap_damaged(&given)?;
        overruns(
            &answer,
            &format!("unwrap, with {room} bytes of room for a message,"),
        )?;
        let Some(said) = answer.said.filter(|_| answer.code != abi::OK) else {
            fail!("a blob of other bytes was opened");
        };
        if said.message_len > room as u64 {
            fail!(
                "with {room} bytes of room for a message it says that it wrote {}",
                said.message_len
            );
        }
        if std::str::from_utf8(&said.message).is_err() {
            fail!("with {room} bytes of room the message is cut within a character, or is not UTF-8");
        }
    }
    Ok(Vec::new())
}

pub(super) fn errors(bench: &Bench) -> Checked {
    let tried = Tried::new(bench)?;
    let host = bench.host();
    let max = bench.description().limits.plaintext_max_bytes as usize;
    let long = tried
        .key
        .wrap_as(&Given::default(), &tried.context, &vec![7; max + 1])
        .map_err(unfit)?;
    let small = Given {
        rooms: vec![Some(0)],
        ..Given::default()
    };
    for (what, answer) in [
        ("a damaged blob", tried.unwrap_damaged(&Given::default())?),
        (
            "a config that is none",
            bench.probe.open_as(
                &Given::default(),
                &bench.request(&bench.job.settings, "[]", &host),
            ),
        ),
        ("a plaintext that is too long", long),
        ("too little room", tried.unwrap(&small)?),
    ] {
        overruns(&answer, what)?;
        let Some(said) = answer.said.as_ref().filter(|_| answer.code != abi::OK) else {
            fail!("{what} is no error");
        };
        let known = ErrorCode::ALL.iter().map(|code| code.as_i32());
        let of_the_interface = [abi::BUFFER_TOO_SMALL, abi::INVALID_ARGUMENT];
        if !known.chain(of_the_interface).any(|code| code == answer.code) {
            fail!(
                "{what} is answered with code {}, which does not exist",
                answer.code
            );
        }
        if said.code != answer.code {
            fail!(
                "{what} is answered with code {}, and code {} is written into the error",
                answer.code,
                said.code
            );
        }
        if said.message_len == 0 || said.message_len > abi::MESSAGE_MAX {
            fail!(
                "{what} is answered without a reason, or with one of {} bytes",
                said.message_len
            );
        }
        let Ok(text) = std::str::from_utf8(&said.message) else {
            fail!("the reason of {what} is not UTF-8");
        };
        if text.contains(char::is_control) {
            fail!("the reason of {what} has control characters in it: {text:?}");
        }
        if said.retry_after_ms > 3_600_000 {
            fail!(
                "{what} is answered with a wait of {} ms; the host cuts it to an hour",
                said.retry_after_ms
            );
        }
    }
    Ok(Vec::new())
}

pub(super) fn nulls(bench: &Bench) -> Checked {
    bench.probe.close_nothing();
    let tried = Tried::new(bench)?;
    let no_error = Given {
        no_error: true,
        ..Given::default()
    };
    let no_cancel = Given {
        no_cancel: true,
        ..Given::default()
    };
    for (what, given) in [
        ("a null error", &no_error),
        ("a null cancel callback", &no_cancel),
    ] {
        let answers = [
            ("wrap", tried.wrap(given)?),
            ("unwrap", tried.unwrap(given)?),
            ("status", tried.key.status_as(given)),
        ];
        for (call, answer) in answers {
            let how = format!("{call}, with {what},");
            overruns(&answer, &how)?;
            if answer.code != abi::OK {
                fail!("{how} answers code {} ({})", answer.code, reason(&answer));
            }
        }
    }
    let request = bench.request(&bench.job.settings, "[]", &bench.host());
    let refused = [
        ("a damaged blob", tried.unwrap_damaged(&no_error)?),
        ("a config that is none", bench.probe.open_as(&no_error, &request)),
        (
            "too little room",
            tried.wrap(&Given {
                rooms: vec![Some(0)],
                ..no_error.clone()
            })?,
        ),
    ];
    for (what, answer) in refused {
        if answer.code == abi::OK {
            fail!("{what}, with a null error, is no error");
        }
    }
    bench.opens(&tried.key, &tried.context, &tried.wrapped, &tried.plaintext)?;
    Ok(Vec::new())
}

pub(super) fn structs(bench: &Bench) -> Checked {
    let tried = Tried::new(bench)?;
    let host = bench.host();
    let open = |given: &Given| {
        bench.probe.open_as(
            given,
            &bench.request(&bench.job.settings, &bench.job.config, &host),
        )
    };
    let ask = |of: Struct, given: &Given| -> Checked<Vec<(&'static str, Answer)>> {
        Ok(match of {
            Struct::OpenRequest => vec![("open", open(given))],
            Struct::Wrapped => vec![("unwrap", tried.unwrap(given)?)],
            Struct::Error => vec![("unwrap", tried.unwrap_damaged(given)?)],
            Struct::Context => vec![("wrap", tried.wrap(given)?), ("unwrap", tried.unwrap(given)?)],
            Struct::Answer => vec![
                ("wrap", tried.wrap(given)?),
                ("status", tried.key.status_as(given)),
            ],
            Struct::Call => vec![
                ("wrap", tried.wrap(given)?),
                ("unwrap", tried.unwrap(given)?),
                ("status", tried.key.status_as(given)),
            ],
        })
    };
    let sized = |of, size| Given {
        size: Some((of, size)),
        ..Given::default()
    };
    let structs = [
        (Struct::Call, "call header"),
        (Struct::Context, "context"),
        (Struct::Wrapped, "wrapped key"),
        (Struct::Answer, "place for the answer"),
        (Struct::OpenRequest, "request"),
        (Struct::Error, "error"),
    ];
    for (of, name) in structs {
        for (call, answer) in ask(of, &sized(of, Size::Longer))? {
            let how = format!("{call}, with a {name} of a later version,");
            overruns(&answer, &how)?;
            if (answer.code == abi::OK) == (of == Struct::Error) {
                fail!("{how} answers code {} ({})", answer.code, reason(&answer));
            }
        }
    }
    for (of, name) in structs {
        for bytes in [0, 4, 8] {
            for (call, answer) in ask(of, &sized(of, Size::Short(bytes)))? {
                let how = format!("{call}, with a {name} of {bytes} bytes,");
                overruns(&answer, &how)?;
                if of == Struct::Error {
                    let touched = answer
                        .said
                        .as_ref()
                        .is_some_and(|said| said.code != 0 || said.message_len != 0);
                    if answer.code == abi::OK || touched {
                        fail!("{how} answers code {}, and writes into the error", answer.code);
                    }
                } else if answer.code != abi::INVALID_ARGUMENT {
                    fail!(
                        "{how} answers code {}; the code must be INVALID_ARGUMENT ({}): what is beyond a struct's size is \
                         somebody else's memory",
                        answer.code,
                        abi::INVALID_ARGUMENT
                    );
                }
            }
        }
    }
    Ok(Vec::new())
}

pub(super) fn too_long(bench: &Bench) -> Checked {
    let tried = Tried::new(bench)?;
    let max = bench.description().limits.plaintext_max_bytes as usize;
    for len in [max + 1, max + 4096] {
        let began = Instant::now();
        let answer = tried
            .key
            .wrap_as(&Given::default(), &tried.context, &vec![7; len])
            .map_err(unfit)?;
        overruns(&answer, &format!("wrapping {len} bytes"))?;
        if answer.code == abi::OK {
            fail!("{len} bytes are wrapped, and it describes that it takes {max}");
        }
        if began.elapsed() > GRACE {
            return Err(Stop::Late(format!(
                "it took {} ms to refuse {len} bytes",
                began.elapsed().as_millis()
            )));
        }
    }
    bench.opens(&tried.key, &tried.context, &tried.wrapped, &tried.plaintext)?;
    Ok(Vec::new())
}
