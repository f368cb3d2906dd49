//! Names of AWS resources, parsed: what is not shaped like one never reaches the SDK.
//!
//! The region of a key ARN becomes part of a host name, and the ARN comes from the store file: the characters that
//! are let through cannot leave the label of the host name that they stand in.

use std::fmt;

use keystead_backend_common::quote;

/// The ARN of a KMS key or of an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyArn {
    text: String,
    partition: String,
    region: String,
    account: String,
    resource: Resource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Key,
    Alias,
}

impl KeyArn {
    /// Parses the ARN of a key or of an alias; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let shape = "arn:aws:kms:<region>:<account>:key/<id> or arn:aws:kms:<region>:<account>:alias/<name>";
        let [partition, service, region, account, resource] = split(text).ok_or_else(|| {
            format!("is not an ARN; it looks like {shape} (a bare key id or alias name is not enough: the ARN says the region and the account)")
        })?;
        check_partition(partition)?;
        if service != "kms" {
            return Err(format!(
                "is an ARN of the service {}, not of kms; it looks like {shape}",
                quote(service)
            ));
        }
        check_region(region, partition)?;
        check_account(account)?;
        let resource = if let Some(id) = resource.strip_prefix("key/") {
            if id.is_empty() || id.len() > 128 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            {
                return Err(format!("has a key id that cannot be one: {}", quote(id)));
            }
            Resource::Key
        } else if let Some(name) = resource.strip_prefix("alias/") {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-');
            if name.is_empty() || name.len() > 250 || !name.bytes().all(fits) {
                return Err(format!("has an alias name that cannot be one: {}", quote(name)));
            }
            if name.starts_with("aws/") {
                return Err(
                    "names a key that AWS manages for one of its services; create a customer managed key"
                        .into(),
                );
            }
            Resource::Alias
        } else {
            return Err(format!("names neither a key nor an alias; it looks like {shape}"));
        };
        Ok(Self {
            text: text.into(),
            partition: partition.into(),
            region: region.into(),
            account: account.into(),
            resource,
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn partition(&self) -> &str {
        &self.partition
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    pub(crate) fn is_alias(&self) -> bool {
        self.resource == Resource::Alias
    }

    /// True when `key` can be the key that this ARN stands for: itself, or for an alias any key of its account and
    /// region.
    pub(crate) fn may_be(&self, key: &KeyArn) -> bool {
        if self.is_alias() {
            !key.is_alias()
                && (&self.partition, &self.region, &self.account)
                    == (&key.partition, &key.region, &key.account)
        } else {
            self == key
        }
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks the ARN of an IAM role that is to be assumed for using a key of `partition`.
pub(crate) fn check_role_arn(text: &str, partition: &str) -> Result<(), String> {
    let shape = "arn:aws:iam::<account>:role/<name>";
    let [role_partition, service, region, account, resource] =
        split(text).ok_or_else(|| format!("is not an ARN; it looks like {shape}"))?;
    check_partition(role_partition)?;
    if service != "iam" || !region.is_empty() {
        return Err(format!("is not the ARN of an IAM role; it looks like {shape}"));
    }
    check_account(account)?;
    let name = resource
        .strip_prefix("role/")
        .ok_or_else(|| format!("names something other than a role; it looks like {shape}"))?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/_+=,.@-".contains(&b);
    if name.is_empty() || name.len() > 576 || !name.bytes().all(fits) {
        return Err(format!("has a role name that cannot be one: {}", quote(name)));
    }
    if role_partition != partition {
        return Err(format!(
            "is in the partition {role_partition}, but the key is in {partition}: a role cannot cross partitions"
        ));
    }
    Ok(())
}

/// What stands after `arn:`: partition, service, region, account, resource.
fn split(text: &str) -> Option<[&str; 5]> {
    let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
    let five = [
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    ];
    Some(five)
}

fn check_partition(partition: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b == b'-';
    if (partition == "aws" || partition.starts_with("aws-"))
        && partition.len() <= 16
        && partition.bytes().all(fits)
    {
        Ok(())
    } else {
        Err(format!(
            "has the partition {}, which is not one of AWS (aws, aws-cn, aws-us-gov, …)",
            quote(partition)
        ))
    }
}

fn check_region(region: &str, partition: &str) -> Result<(), String> {
    // Two or more words and a number: eu-west-1, us-gov-east-1, us-isob-east-1.
    let mut words = region.split('-').collect::<Vec<_>>();
    let number = words.pop().unwrap_or_default();
    let number_fits = (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let words_fit = (2..=4).contains(&words.len())
        && words
            .iter()
            .all(|word| (1..=16).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()));
    if !number_fits || !words_fit {
        return Err(format!(
            "has the region {}, which is not shaped like one (such as eu-west-1)",
            quote(region)
        ));
    }
    let home = match (words[0], words[1]) {
        ("cn", _) => Some("aws-cn"),
        ("us", "gov") => Some("aws-us-gov"),
        _ => None,
    };
    let fits = match home {
        Some(home) => home == partition,
        None => !matches!(partition, "aws-cn" | "aws-us-gov"),
    };
    if fits {
        Ok(())
    } else {
        Err(format!(
            "has the region {region}, which is not in the partition {partition}"
        ))
    }
}

fn check_account(account: &str) -> Result<(), String> {
    if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) {
        Ok(())
    } else {
        Err(format!(
            "has the account {}; an AWS account is 12 digits",
            quote(account)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const ALIAS: &str = "arn:aws:kms:eu-west-1:111122223333:alias/acme/vault_1";

    #[test]
    fn a_key_and_an_alias_parse_and_say_their_parts() {
        let key = KeyArn::parse(KEY).unwrap();
        assert_eq!(
            (key.as_str(), key.partition(), key.region(), key.is_alias()),
            (KEY, "aws", "eu-west-1", false)
        );
        assert!(KeyArn::parse(ALIAS).unwrap().is_alias());
    }

    #[test]
    fn keys_of_every_partition_parse() {
        for arn in [
            "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1",
            "arn:aws-iso-b:kms:us-isob-east-1:111122223333:key/1",
            "arn:aws-eusc:kms:eusc-de-east-1:111122223333:key/1",
        ] {
            KeyArn::parse(arn).unwrap_or_else(|error| panic!("{arn} {error}"));
        }
    }

    #[test]
    fn what_is_not_a_key_arn_is_refused_with_the_reason() {
        for (arn, reason) in [
            ("", "is not an ARN"),
            ("alias/acme", "is not an ARN"),
            ("1234abcd-12ab-34cd-56ef-1234567890ab", "is not an ARN"),
            ("arn:aws:kms:eu-west-1:111122223333", "is not an ARN"),
            ("arn:gcp:kms:eu-west-1:111122223333:key/1", "partition"),
            ("arn:aws:s3:eu-west-1:111122223333:key/1", "service"),
            ("arn:aws:kms::111122223333:key/1", "region"),
            ("arn:aws:kms:evil.example#-1:111122223333:key/1", "region"),
            ("arn:aws:kms:eu-west-1.evil.example:111122223333:key/1", "region"),
            ("arn:aws:kms:eu-west-1/x:111122223333:key/1", "region"),
            ("arn:aws:kms:EU-WEST-1:111122223333:key/1", "region"),
            (
                "arn:aws:kms:cn-north-1:111122223333:key/1",
                "not in the partition aws",
            ),
            (
                "arn:aws-cn:kms:eu-west-1:111122223333:key/1",
                "not in the partition aws-cn",
            ),
            ("arn:aws:kms:eu-west-1:1234:key/1", "12 digits"),
            (
                "arn:aws:kms:eu-west-1:111122223333:grant/1",
                "neither a key nor an alias",
            ),
            ("arn:aws:kms:eu-west-1:111122223333:key/", "key id"),
            ("arn:aws:kms:eu-west-1:111122223333:key/a b", "key id"),
            ("arn:aws:kms:eu-west-1:111122223333:key/a\u{1b}[2J", "key id"),
            ("arn:aws:kms:eu-west-1:111122223333:alias/", "alias name"),
            ("arn:aws:kms:eu-west-1:111122223333:alias/aws/s3", "AWS manages"),
        ] {
            let error = KeyArn::parse(arn).expect_err(arn);
            assert!(error.contains(reason), "{arn}: {error}");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }

    #[test]
    fn an_alias_may_be_any_key_of_its_account_and_region_and_a_key_only_itself() {
        let [key, alias] = [KEY, ALIAS].map(|arn| KeyArn::parse(arn).unwrap());
        let other = KeyArn::parse("arn:aws:kms:eu-west-1:111122223333:key/2").unwrap();
        let elsewhere = KeyArn::parse("arn:aws:kms:eu-west-2:111122223333:key/2").unwrap();
        let stranger = KeyArn::parse("arn:aws:kms:eu-west-1:999922223333:key/2").unwrap();
        assert!(key.may_be(&key) && !key.may_be(&other) && !key.may_be(&alias));
        assert!(alias.may_be(&key) && alias.may_be(&other));
        assert!(!alias.may_be(&elsewhere) && !alias.may_be(&stranger) && !alias.may_be(&alias));
    }

    #[test]
    fn a_role_arn_is_checked_against_its_shape_and_the_keys_partition() {
        let check = |arn| check_role_arn(arn, "aws");
        check("arn:aws:iam::111122223333:role/path/Keystead-1").unwrap();
        for (arn, reason) in [
            ("Keystead", "is not an ARN"),
            ("arn:aws:iam::111122223333:user/x", "other than a role"),
            (
                "arn:aws:iam:eu-west-1:111122223333:role/x",
                "not the ARN of an IAM role",
            ),
            (
                "arn:aws:sts::111122223333:assumed-role/x",
                "not the ARN of an IAM role",
            ),
            ("arn:aws:iam::11:role/x", "12 digits"),
            ("arn:aws:iam::111122223333:role/", "role name"),
            ("arn:aws:iam::111122223333:role/x y", "role name"),
            ("arn:aws-cn:iam::111122223333:role/x", "cross partitions"),
        ] {
            let error = check(arn).expect_err(arn);
            assert!(error.contains(reason), "{arn}: {error}");
        }
    }
}
