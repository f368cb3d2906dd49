//! The owner's side: making keys, aliases, roles and users in an emulator, switching keys off and on.
//!
//! Plain HTTP, written here: the tests of a backend must not share its client.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::REGION;

/// An AWS account in an emulator, used as its root user.
#[derive(Debug, Clone)]
pub struct Account {
    agent: ureq::Agent,
    endpoint: String,
    number: String,
}

/// A user's access key.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// Its public half.
    pub id: String,
    /// Its secret half; it guards nothing but an emulator.
    pub secret: String,
}

impl Account {
    pub(super) fn new(endpoint: &str, number: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        Self {
            agent,
            endpoint: endpoint.into(),
            number: number.into(),
        }
    }

    /// The account's 12 digits.
    pub fn number(&self) -> &str {
        &self.number
    }

    /// Makes a symmetric key and returns its ARN.
    ///
    /// # Errors
    ///
    /// Like every call here: the emulator was not reached, or refused; the message has its answer.
    pub fn create_key(&self) -> anyhow::Result<String> {
        let answer = self.kms("CreateKey", &json!({}))?;
        Ok(answer["KeyMetadata"]["Arn"]
            .as_str()
            .context("CreateKey answered without an ARN")?
            .to_owned())
    }

    /// Makes the alias `alias/{name}` of a key and returns the alias's ARN.
    pub fn create_alias(&self, name: &str, key_arn: &str) -> anyhow::Result<String> {
        self.kms(
            "CreateAlias",
            &json!({ "AliasName": format!("alias/{name}"), "TargetKeyId": key_id(key_arn) }),
        )?;
        Ok(format!("arn:aws:kms:{REGION}:{}:alias/{name}", self.number))
    }

    /// Points `alias/{name}` to another key.
    pub fn move_alias(&self, name: &str, key_arn: &str) -> anyhow::Result<()> {
        self.kms(
            "UpdateAlias",
            &json!({ "AliasName": format!("alias/{name}"), "TargetKeyId": key_id(key_arn) }),
        )?;
        Ok(())
    }

    /// Switches a key off.
    pub fn disable_key(&self, key_arn: &str) -> anyhow::Result<()> {
        self.kms("DisableKey", &json!({ "KeyId": key_id(key_arn) }))
            .map(drop)
    }

    /// Switches a key on again.
    pub fn enable_key(&self, key_arn: &str) -> anyhow::Result<()> {
        self.kms("EnableKey", &json!({ "KeyId": key_id(key_arn) }))
            .map(drop)
    }

    /// Has a key deleted in seven days; until then it is pending deletion and cannot be used.
    pub fn schedule_key_deletion(&self, key_arn: &str) -> anyhow::Result<()> {
        self.kms(
            "ScheduleKeyDeletion",
            &json!({ "KeyId": key_id(key_arn), "PendingWindowInDays": 7 }),
        )
        .map(drop)
    }

    /// Takes that back; the key is then disabled.
    pub fn cancel_key_deletion(&self, key_arn: &str) -> anyhow::Result<()> {
        self.kms("CancelKeyDeletion", &json!({ "KeyId": key_id(key_arn) }))
            .map(drop)
    }

    /// Replaces a key's policy.
    pub fn put_key_policy(&self, key_arn: &str, policy: &Value) -> anyhow::Result<()> {
        let policy = policy.to_string();
        self.kms(
            "PutKeyPolicy",
            &json!({ "KeyId": key_id(key_arn), "PolicyName": "default", "Policy": policy }),
        )
        .map(drop)
    }

    /// Makes a role with this trust policy and returns its ARN.
    pub fn create_role(&self, name: &str, trust: &Value) -> anyhow::Result<String> {
        let trust = trust.to_string();
        self.iam(
            "CreateRole",
            &[("RoleName", name), ("AssumeRolePolicyDocument", &trust)],
        )?;
        Ok(format!("arn:aws:iam::{}:role/{name}", self.number))
    }

    /// Gives a role its one policy, in place of the one before.
    pub fn put_role_policy(&self, name: &str, policy: &Value) -> anyhow::Result<()> {
        let policy = policy.to_string();
        self.iam(
            "PutRolePolicy",
            &[
                ("RoleName", name),
                ("PolicyName", "own"),
                ("PolicyDocument", &policy),
            ],
        )
        .map(drop)
    }

    /// Replaces a role's trust policy.
    pub fn update_trust(&self, name: &str, trust: &Value) -> anyhow::Result<()> {
        let trust = trust.to_string();
        self.iam(
            "UpdateAssumeRolePolicy",
            &[("RoleName", name), ("PolicyDocument", &trust)],
        )
        .map(drop)
    }

    /// Makes a user who may do nothing yet, and returns the user's access key.
    pub fn create_user(&self, name: &str) -> anyhow::Result<AccessKey> {
        self.iam("CreateUser", &[("UserName", name)])?;
        let answer = self.iam("CreateAccessKey", &[("UserName", name)])?;
        let part = |tag: &str| {
            let text = answer.split_once(&format!("<{tag}>"))?.1;
            Some(text.split_once('<')?.0.to_owned())
        };
        let id = part("AccessKeyId").context("CreateAccessKey answered without an AccessKeyId")?;
        let secret = part("SecretAccessKey").context("CreateAccessKey answered without a SecretAccessKey")?;
        Ok(AccessKey { id, secret })
    }

    /// Gives a user its one policy, in place of the one before.
    pub fn put_user_policy(&self, name: &str, policy: &Value) -> anyhow::Result<()> {
        let policy = policy.to_string();
        self.iam(
            "PutUserPolicy",
            &[
                ("UserName", name),
                ("PolicyName", "own"),
                ("PolicyDocument", &policy),
            ],
        )
        .map(drop)
    }

    /// Takes a user's access key away.
    pub fn delete_access_key(&self, name: &str, key: &AccessKey) -> anyhow::Result<()> {
        self.iam("DeleteAccessKey", &[("UserName", name), ("AccessKeyId", &key.id)])
            .map(drop)
    }

    /// Any call of KMS, such as `Decrypt`, with its JSON as AWS documents it.
    pub fn kms(&self, operation: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self
            .agent
            .post(&self.endpoint)
            .header("authorization", self.authorization("kms"))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{operation}"));
        let mut answer = request
            .send(body.to_string())
            .with_context(|| format!("calling kms:{operation}"))?;
        let text = answer.body_mut().read_to_string()?;
        if answer.status() != 200 {
            bail!(
                "kms:{operation} was refused with HTTP {}: {text}",
                answer.status()
            );
        }
        if text.is_empty() {
            Ok(Value::Null)
        } else {
            Ok(serde_json::from_str(&text)?)
        }
    }

    /// Any call of IAM, such as `CreateUser`, with its parameters; returns the XML of the answer.
    pub fn iam(&self, action: &str, parameters: &[(&str, &str)]) -> anyhow::Result<String> {
        let form = [("Action", action), ("Version", "2010-05-08")]
            .into_iter()
            .chain(parameters.iter().copied());
        let request = self
            .agent
            .post(&self.endpoint)
            .header("authorization", self.authorization("iam"));
        let mut answer = request
            .send_form(form)
            .with_context(|| format!("calling iam:{action}"))?;
        let text = answer.body_mut().read_to_string()?;
        if answer.status() != 200 {
            bail!("iam:{action} was refused with HTTP {}: {text}", answer.status());
        }
        Ok(text)
    }

    /// Names the account and the service. The signature is none: the emulators do not check that of a root user.
    fn authorization(&self, service: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential={}/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=00",
            self.number
        )
    }
}

/// The bare id in a key's ARN: moto does not take the ARN in every call.
fn key_id(key_arn: &str) -> &str {
    key_arn.rsplit_once("key/").map_or(key_arn, |(_, id)| id)
}
