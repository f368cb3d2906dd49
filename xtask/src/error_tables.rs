//! The tables of errors on the backends' pages (`docs/backends/*.md`): each row names its tests, and each of these is there.
//!
//! A table whose last column is `tests` is one. Its cells read `` `file`: *name of a test*, *another*; `file`: … ``, where a file is one of
//! the backend's `tests/` or `src/`, and a name is that of the function, with blanks. Or they refer to another row.

use crate::house_rules::collect;
use anyhow::Context;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How a cell says that another row's tests are its own.
const REFERENCES: [&str; 3] = ["the same", "as the first row", "the same as above"];

/// Functions by the file that they stand in, both as [`letters`] and as parts of a path.
type Tests = BTreeMap<String, Vec<String>>;

/// Every row that is wrong, as `file:line: what`.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    let pages = root.join("docs/backends");
    for entry in fs::read_dir(&pages).with_context(|| format!("reading {}", pages.display()))? {
        let page = entry?.path();
        let name = page
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let backend = root.join("backends").join(&name);
        if !backend.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
        let wrong = check_page(&text, &tests_of(&backend)?);
        broken.extend(
            wrong
                .into_iter()
                .map(|(line, what)| format!("docs/backends/{name}.md:{line}: {what}")),
        );
    }
    Ok(broken)
}

fn tests_of(backend: &Path) -> anyhow::Result<Tests> {
    let mut files = Vec::new();
    collect(backend, &mut files)?;
    let mut tests = Tests::new();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|it| it == "rs"))
    {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let functions = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("fn "))
            .filter_map(|line| Some(letters(line.split_once('(')?.0)))
            .collect();
        let path = file.strip_prefix(backend).unwrap_or(file).with_extension("");
        tests.insert(path.to_string_lossy().replace('\\', "/"), functions);
    }
    Ok(tests)
}

fn check_page(text: &str, tests: &Tests) -> Vec<(usize, String)> {
    let mut wrong = Vec::new();
    let mut is_errors = false;
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            is_errors = false;
            continue;
        };
        let last = row
            .trim_end()
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap_or_default()
            .trim();
        if lines.get(index + 1).is_some_and(|next| next.starts_with("| ---")) {
            is_errors = last == "tests";
        } else if is_errors && !line.starts_with("| ---") {
            wrong.extend(check_cell(last, tests).into_iter().map(|what| (index + 1, what)));
        }
    }
    wrong
}

fn check_cell(cell: &str, tests: &Tests) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut file = String::new();
    let mut names = 0;
    // Pieces between stars are names, by turns.
    for (number, piece) in cell.split('*').enumerate() {
        if number % 2 == 0 {
            // The last word in backticks before a name is the file that it stands in.
            if let Some(named) = piece.split('`').skip(1).step_by(2).last() {
                file = named.to_owned();
            }
            continue;
        }
        names += 1;
        let wanted = letters(piece);
        let is_there = tests
            .iter()
            .any(|(path, functions)| is_in(path, &file) && functions.contains(&wanted));
        if !is_there {
            wrong.push(format!("there is no test *{piece}* in `{file}`"));
        }
    }
    let refers = REFERENCES
        .iter()
        .any(|words| cell.trim_end_matches('.').contains(words));
    if names == 0 && !refers {
        wrong.push("a row of a table of errors that names no test".to_owned());
    }
    wrong
}

/// Whether a path is the file, or in the directory, that a page calls so: `faults` is `tests/faults/…`, `src/failure` is one file.
fn is_in(path: &str, file: &str) -> bool {
    let (path, file) = (format!("/{path}/"), format!("/{file}/"));
    path.contains(&file)
}

fn letters(name: &str) -> String {
    name.chars()
        .filter(|letter| letter.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(rows: &str) -> Vec<(usize, String)> {
        let tests = Tests::from([
            ("tests/errors".into(), vec![letters("an_owner_s_refusal_is_seen")]),
            (
                "tests/faults/main".into(),
                vec![letters("a_burst_of_503_is_waited_out")],
            ),
        ]);
        check_page(&format!("| says | tests |\n| --- | --- |\n{rows}\n"), &tests)
    }

    #[test]
    fn a_row_whose_tests_are_there_is_right() {
        let rows = "| a | `errors`: *an owner's refusal is seen*; `faults`: *a burst of 503 is waited out* |\n| b | the same |";
        assert_eq!(wrong(rows), Vec::new());
    }

    #[test]
    fn a_row_without_tests_or_with_one_that_is_not_there_or_elsewhere_is_wrong() {
        for row in [
            "| a | |",
            "| a | by hand |",
            "| a | `errors`: *an owner's refusal is not seen* |",
            "| a | `faults`: *an owner's refusal is seen* |",
            "| a | *an owner's refusal is seen*, *and more* |",
        ] {
            let wrong = wrong(row);
            assert!(
                !wrong.is_empty() && wrong.iter().all(|(line, _)| *line == 3),
                "{row}: {wrong:?}"
            );
        }
    }

    #[test]
    fn other_tables_are_not_looked_at() {
        let text = "| says | look at |\n| --- | --- |\n| a | *nothing* |\n";
        assert_eq!(check_page(text, &Tests::new()), Vec::new());
    }
}
