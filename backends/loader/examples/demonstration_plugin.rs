//! A plugin in Rust, for the tests of the loader and as the shortest example of one.
//!
//! DEMONSTRATION ONLY: its "KMS" is a passphrase in the config, which the store file holds in clear. It protects nothing.
//!
//! Build: `cargo build -p keystead-loader --example demonstration_plugin`.

use std::sync::Arc;
use std::time::Duration;

use keystead_backend::{
    BackendError, Call, Capabilities, Context, Description, ErrorCode, Host, KeyBackend, KeyInstance,
    LockedBytes, LogLevel, OpenRequest, SizeLimits, Status, Wrapped,
};

#[derive(Default)]
struct Demonstration;

const LIMITS: SizeLimits = SizeLimits {
    plaintext_max_bytes: 256,
    blob_max_bytes: 320,
    key_id_max_bytes: 64,
    metadata_max_bytes: 16,
};

const TAG_BYTES: usize = 32;

impl KeyBackend for Demonstration {
    fn describe(&self) -> Description {
        let mut description = Description::new("demonstration", "0.1.0");
        description.limits = LIMITS;
        description.capabilities = Capabilities {
            binds_context: true,
            rewrap: true,
            interrupt: false,
        };
        description
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(request.config)
            .map_err(|error| invalid(format!("the config is no JSON object: {error}")))?;
        if let Some(unknown) = config
            .keys()
            .find(|field| !["passphrase", "misbehave"].contains(&field.as_str()))
        {
            return Err(invalid(format!("the config has an unknown field `{unknown}`")));
        }
        let text = |field: &str| {
            config
                .get(field)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        let passphrase =
            text("passphrase").ok_or_else(|| invalid("the config lacks `passphrase`, a text".into()))?;
        let misbehave = text("misbehave").unwrap_or_default();
        if misbehave == "panic in open" {
            panic!("asked to panic");
        }
        request.host.log(LogLevel::Info, "demonstration key opened");
        if misbehave == "use the host after close" {
            let host = Arc::clone(&request.host);
            std::thread::spawn(move || {
                for _ in 0..200 {
                    host.log(LogLevel::Debug, "still here");
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let key = blake3::derive_key("keystead demonstration plugin", passphrase.as_bytes());
        Ok(Box::new(DemonstrationKey {
            key,
            misbehave,
            host: request.host,
        }))
    }
}

fn invalid(message: String) -> BackendError {
    BackendError::new(ErrorCode::InvalidConfig, message)
}

struct DemonstrationKey {
    key: [u8; 32],
    misbehave: String,
    host: Arc<dyn Host>,
}

impl DemonstrationKey {
    fn key_id(&self) -> String {
        format!("demonstration/{}", &blake3::hash(&self.key).to_hex()[..16])
    }

    fn apply_keystream(&self, context: &Context, nonce: &[u8], bytes: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(nonce).update(&context.canonical_bytes());
        let mut keystream = vec![0; bytes.len()];
        hasher.finalize_xof().fill(&mut keystream);
        bytes
            .iter_mut()
            .zip(keystream)
            .for_each(|(byte, key)| *byte ^= key);
    }

    fn tag(&self, context: &Context, nonce: &[u8], body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher
            .update(b"tag")
            .update(nonce)
            .update(body)
            .update(&context.canonical_bytes());
        hasher.finalize()
    }
}

impl KeyInstance for DemonstrationKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        match self.misbehave.as_str() {
            "wait for cancel" => {
                let mut left_ms = call.timeout.as_millis();
                while left_ms > 0 && !call.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                    left_ms -= 1;
                }
                let code = if call.is_cancelled() {
                    ErrorCode::Cancelled
                } else {
                    ErrorCode::Timeout
                };
                Err(BackendError::new(code, "waited"))
            }
            "tell the token" => {
                let token = self.host.identity_token("aws:acme")?;
                Ok(Status {
                    key_id: self.key_id(),
                    detail: blake3::hash(token.as_slice()).to_hex().to_string(),
                })
            }
            "throttle" => Err(BackendError::new(ErrorCode::Throttled, "slow down")
                .with_retry_after(Duration::from_micros(1500))),
            _ => Ok(Status {
                key_id: self.key_id(),
                detail: format!("request {}", call.request_id),
            }),
        }
    }

    fn wrap(&self, _call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        match self.misbehave.as_str() {
            "panic" => panic!("asked to panic"),
            "answer too much" => {
                return Ok(Wrapped {
                    blob: vec![1; 321],
                    key_id: self.key_id(),
                    metadata: Vec::new(),
                });
            }
            "answer nothing" => {
                return Ok(Wrapped {
                    blob: Vec::new(),
                    key_id: self.key_id(),
                    metadata: Vec::new(),
                });
            }
            _ => {}
        }
        let mut nonce = vec![0; 16];
        self.host.random(&mut nonce)?;
        let mut blob = plaintext.to_vec();
        self.apply_keystream(context, &nonce, &mut blob);
        let tag = self.tag(context, &nonce, &blob);
        blob.extend_from_slice(tag.as_bytes());
        Ok(Wrapped {
            blob,
            key_id: self.key_id(),
            metadata: nonce,
        })
    }

    fn unwrap(
        &self,
        _call: &Call,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        if wrapped.key_id != self.key_id() {
            return Err(BackendError::new(
                ErrorCode::WrongKey,
                format!("{} wrapped this", wrapped.key_id),
            ));
        }
        let damaged = || {
            BackendError::new(
                ErrorCode::InvalidCiphertext,
                "damaged, or wrapped under another context",
            )
        };
        let split = wrapped.blob.len().checked_sub(TAG_BYTES).ok_or_else(damaged)?;
        let (body, tag) = wrapped.blob.split_at(split);
        // A comparison of two `Hash`es takes constant time.
        if self.tag(context, &wrapped.metadata, body)
            != blake3::Hash::from_slice(tag).map_err(|_| damaged())?
        {
            return Err(damaged());
        }
        LockedBytes::fill_with(body.len(), |plaintext| {
            plaintext.copy_from_slice(body);
            self.apply_keystream(context, &wrapped.metadata, plaintext);
            Ok(())
        })
    }

    fn rewrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<Wrapped, BackendError> {
        self.wrap(call, context, self.unwrap(call, context, wrapped)?.as_slice())
    }
}

keystead_backend::export_backend!(Demonstration);
