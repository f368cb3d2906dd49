//! The answers of a plugin through the C table: sizes, codes, nulls, wrong lengths, long key ids. Whatever it answers, its host
//! gets an error or an answer within the limits that the plugin described.

use crate::direct::{TestHost, never_twice};
use arbitrary::{Arbitrary, Unstructured};
use keystead_backend::{Call, Context, KeyBackend, OpenRequest, Wrapped};
use keystead_loader::simulation::{Answer, Interface, Script, Written};

/// The most bytes that one piece of an answer is made of: a key id of 1 MiB.
const REPEATED_MAX: usize = 1 << 20;
const CALLS_MAX: usize = 8;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    interface: Option<Table>,
    /// `None`: a description that is right.
    description: Option<Reply<'a>>,
    open: Option<Reply<'a>>,
    calls: Vec<(Which, Reply<'a>)>,
}

#[derive(Debug, Arbitrary)]
struct Table {
    no_table: bool,
    struct_size: Option<u8>,
    abi: Option<u8>,
    capabilities: u8,
    null_entries: u8,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Which {
    Status,
    Wrap,
    Unwrap,
    Rewrap,
    Interrupt,
}

#[derive(Debug, Arbitrary)]
struct Reply<'a> {
    code: i16,
    said: Option<i16>,
    retry_after_ms: u64,
    message: Piece<'a>,
    outputs: [Piece<'a>; 3],
    no_instance: bool,
}

#[derive(Debug, Arbitrary)]
struct Piece<'a> {
    bytes: &'a [u8],
    /// The bytes so many times over.
    times: u16,
    len: Option<u64>,
}

impl From<&Piece<'_>> for Written {
    fn from(piece: &Piece<'_>) -> Self {
        let most = REPEATED_MAX / piece.bytes.len().max(1);
        Self {
            bytes: piece.bytes.repeat(usize::from(piece.times).clamp(1, most.max(1))),
            len: piece.len,
        }
    }
}

impl From<&Reply<'_>> for Answer {
    fn from(reply: &Reply<'_>) -> Self {
        Self {
            code: reply.code.into(),
            said: reply.said.map(i32::from),
            retry_after_ms: reply.retry_after_ms,
            message: (&reply.message).into(),
            outputs: [0, 1, 2].map(|n| (&reply.outputs[n]).into()),
            no_instance: reply.no_instance,
        }
    }
}

fn description() -> Answer {
    let json = serde_json::json!({
        "name": "script",
        "version": "1",
        "limits": { "plaintext_max_bytes": 64, "blob_max_bytes": 512, "key_id_max_bytes": 100, "metadata_max_bytes": 16 },
    });
    let bytes = json.to_string().into_bytes();
    Answer {
        outputs: [
            Written { bytes, len: None },
            Written::default(),
            Written::default(),
        ],
        ..Answer::default()
    }
}

fn interface(table: &Table) -> Interface {
    let right = Interface::default();
    Interface {
        no_table: table.no_table,
        struct_size: table.struct_size.map_or(right.struct_size, u32::from),
        abi: table.abi.map_or(right.abi, u32::from),
        capabilities: table.capabilities.into(),
        null_entries: table.null_entries,
    }
}

pub(super) fn run(input: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let mut answers = Vec::new();
    answers.push(input.description.as_ref().map_or_else(description, Answer::from));
    answers.push(input.open.as_ref().map_or_else(Answer::default, Answer::from));
    let calls: Vec<_> = input.calls.iter().take(CALLS_MAX).collect();
    answers.extend(
        calls
            .iter()
            .filter(|(which, _)| !matches!(which, Which::Interrupt))
            .map(|(_, reply)| reply.into()),
    );
    let script = Script {
        interface: input
            .interface
            .as_ref()
            .map_or_else(Interface::default, interface),
        answers: answers.into(),
    };
    let plugin = match script.begin() {
        Ok(plugin) => plugin,
        Err(refusal) => return printable(&refusal.to_string()),
    };
    let described = plugin.describe();
    assert!(!described.name.is_empty() && described.name.len() <= 64);
    let request = OpenRequest {
        settings: "{}",
        config: "{}",
        host: TestHost::minting("token").with_random(never_twice),
    };
    let instance = match plugin.open(request) {
        Ok(instance) => instance,
        Err(error) => return printable(&error.to_string()),
    };
    let (call, context) = (
        Call::with_timeout(std::time::Duration::from_secs(1)),
        Context::new([("store", "0f")]),
    );
    let limits = described.limits;
    let within = |wrapped: &Wrapped| {
        assert!(!wrapped.blob.is_empty() && wrapped.blob.len() <= limits.blob_max_bytes as usize);
        assert!(!wrapped.key_id.is_empty() && wrapped.key_id.len() <= limits.key_id_max_bytes as usize);
        assert!(wrapped.metadata.len() <= limits.metadata_max_bytes as usize);
        printable(&wrapped.key_id);
    };
    let wrapped = Wrapped {
        blob: vec![1; 32],
        key_id: "k".into(),
        metadata: Vec::new(),
    };
    for (which, _) in calls {
        let failed = match which {
            Which::Status => instance.status(&call).map(|status| {
                assert!(status.key_id.len() <= limits.key_id_max_bytes as usize);
                printable(&status.key_id);
                printable(&status.detail);
            }),
            Which::Wrap => instance
                .wrap(&call, &context, &[5; 32])
                .map(|wrapped| within(&wrapped)),
            Which::Rewrap => instance
                .rewrap(&call, &context, &wrapped)
                .map(|wrapped| within(&wrapped)),
            Which::Unwrap => instance.unwrap(&call, &context, &wrapped).map(|plaintext| {
                assert!(plaintext.as_slice().len() <= limits.plaintext_max_bytes as usize);
            }),
            Which::Interrupt => {
                instance.interrupt();
                Ok(())
            }
        };
        if let Err(error) = failed {
            printable(&error.to_string());
        }
    }
}

/// What comes from a plugin goes to logs and terminals.
fn printable(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?} goes to a terminal");
}
