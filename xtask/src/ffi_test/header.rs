//! Reads `keystead.h`: its functions, and the examples in its comments.

use anyhow::{Context, bail};

/// A function of the header. Types have the shorter one of their two names in C.
pub(super) struct Function {
    pub(super) result: String,
    pub(super) name: String,
    /// Each one's type and name.
    pub(super) arguments: Vec<(String, String)>,
}

/// An example in a comment.
pub(super) struct Example {
    /// The line of the header that its comment begins at.
    pub(super) line: usize,
    pub(super) text: String,
    /// What stands behind the comment: what it is the manual of.
    pub(super) of: String,
}

/// What an example is indented by, in a comment.
const INDENT: &str = "     ";
/// A header in which fewer are found was not understood.
const FUNCTIONS_MIN: usize = 80;
const EXAMPLES_MIN: usize = 20;

pub(super) fn functions(header: &str) -> anyhow::Result<Vec<Function>> {
    let header = header.replace("struct keystead_", "keystead_");
    let mut rest = &*header;
    let mut functions = Vec::new();
    // Prototypes are what is left without comments and directives, up to each semicolon.
    while let Some(at) = rest.find("keystead_") {
        let line_start = rest[..at].rfind('\n').map_or(0, |end| end + 1);
        let line_end = rest[at..].find('\n').map_or(rest.len(), |end| at + end);
        let line = &rest[line_start..line_end];
        let is_prototype = line.contains('(')
            && !line.starts_with([' ', '#', '/', '*', '}'])
            && !line.starts_with("typedef");
        if !is_prototype {
            rest = &rest[line_end..];
            continue;
        }
        let end = rest[line_start..].find(");").context("a prototype has no end")? + line_start;
        functions.push(function(&rest[line_start..end])?);
        rest = &rest[end..];
    }
    if functions.len() < FUNCTIONS_MIN {
        bail!("only {} functions were found in the header", functions.len());
    }
    Ok(functions)
}

fn function(prototype: &str) -> anyhow::Result<Function> {
    let (head, arguments) = prototype
        .split_once('(')
        .context("a prototype has no arguments")?;
    let (result, name) = split_name(head)?;
    let arguments = arguments
        .split(',')
        .map(str::trim)
        .filter(|argument| *argument != "void")
        .map(split_name)
        .collect::<anyhow::Result<_>>()?;
    Ok(Function {
        result,
        name,
        arguments,
    })
}

/// `const char *path` is the type `const char *` and the name `path`.
fn split_name(text: &str) -> anyhow::Result<(String, String)> {
    let at = text.rfind([' ', '*']).context("no type")? + 1;
    Ok((text[..at].trim().to_owned(), text[at..].to_owned()))
}

/// The examples in the comments at functions and types.
pub(super) fn examples(header: &str) -> anyhow::Result<Vec<Example>> {
    let mut examples = Vec::new();
    let mut line = 0;
    for (number, part) in header.split("\n/*\n").enumerate() {
        let began = line;
        line += part.matches('\n').count() + 2;
        let (comment, behind) = part.split_once("\n */\n").unwrap_or((part, ""));
        let indented = comment.lines().filter_map(|line| line.strip_prefix(INDENT));
        let text: String = indented.map(|line| format!("{line}\n")).collect();
        // The first part is the header's own beginning.
        if number > 0 && !text.is_empty() {
            let of = behind.split(';').next().unwrap_or_default();
            examples.push(Example {
                line: began,
                text,
                of: of.to_owned(),
            });
        }
    }
    if examples.len() < EXAMPLES_MIN {
        bail!("only {} examples were found in the header", examples.len());
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMENTED: &str = "\
#define KEYSTEAD_H

/*
 Reads. keystead_put() writes.

     code = keystead_get(acme, &out);
     if (code != KEYSTEAD_OK) {
         stop();
     }
 */
int32_t keystead_get(const struct keystead_organization *organization,
                     struct keystead_secret **out);
";

    #[test]
    fn a_prototype_is_its_types_and_names() {
        let header = COMMENTED.repeat(FUNCTIONS_MIN);
        let functions = functions(&header).unwrap();
        assert_eq!(functions.len(), FUNCTIONS_MIN);
        let Function {
            result,
            name,
            arguments,
        } = &functions[0];
        assert_eq!((&**result, &**name), ("int32_t", "keystead_get"));
        let expected = [
            ("const keystead_organization *", "organization"),
            ("keystead_secret **", "out"),
        ];
        assert_eq!(
            *arguments,
            expected.map(|(kind, name)| (kind.into(), name.into()))
        );
    }

    #[test]
    fn an_example_is_what_is_indented_in_a_comment() {
        let examples = examples(&COMMENTED.repeat(EXAMPLES_MIN)).unwrap();
        assert_eq!(examples.len(), EXAMPLES_MIN);
        assert_eq!(
            examples[0].text,
            "code = keystead_get(acme, &out);\nif (code != KEYSTEAD_OK) {\n    stop();\n}\n"
        );
        assert!(examples[0].of.contains("keystead_secret **out"));
        assert_eq!((examples[0].line, examples[1].line), (3, 15));
    }
}
