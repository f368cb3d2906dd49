//! Every exported function goes through the guard, and takes what C passes through it alone.

use std::path::Path;
use syn::{Expr, Item, ItemFn, Stmt};

/// Every exported function of the sources, with its file.
fn exported() -> Vec<(String, ItemFn)> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut functions = Vec::new();
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for item in file.items {
            if let Item::Fn(function) = item
                && function.sig.abi.is_some()
            {
                functions.push((path.display().to_string(), function));
            }
        }
    }
    functions
}

/// The path of the function that `expression` calls: `guard::call`.
fn called(expression: &Expr) -> Option<String> {
    let Expr::Call(call) = expression else { return None };
    let Expr::Path(path) = &*call.func else {
        return None;
    };
    let names: Vec<_> = path
        .path
        .segments
        .iter()
        .map(|part| part.ident.to_string())
        .collect();
    Some(names.join("::"))
}

/// The one expression of a body that is one `unsafe` block with one expression.
fn only_expression(function: &ItemFn) -> Option<&Expr> {
    let [Stmt::Expr(Expr::Unsafe(block), None)] = &*function.block.stmts else {
        return None;
    };
    let [Stmt::Expr(expression, None)] = &*block.block.stmts else {
        return None;
    };
    Some(expression)
}

#[test]
fn every_exported_function_is_one_guarded_expression() {
    let functions = exported();
    assert!(
        functions.len() > 80,
        "only {} functions were found",
        functions.len()
    );
    for (file, function) in &functions {
        let name = function.sig.ident.to_string();
        let guard = only_expression(function).and_then(called).unwrap_or_default();
        assert!(
            ["guard::call", "guard::look", "guard::free", "guard::free_handle"].contains(&guard.as_str()),
            "{file}: {name} does work outside of the guard"
        );
        assert_eq!(
            guard.starts_with("guard::free"),
            name.ends_with("_free"),
            "{file}: {name} frees by {guard}"
        );
    }
}

#[test]
fn every_exported_function_has_its_name_of_c_and_a_manual() {
    for (file, function) in &exported() {
        let name = function.sig.ident.to_string();
        assert!(name.starts_with("keystead_"), "{file}: {name}");
        let attributes = |wanted: &str| {
            let is = |attribute: &&syn::Attribute| attribute.path().is_ident(wanted);
            function.attrs.iter().filter(is).count()
        };
        assert!(attributes("doc") > 0, "{file}: {name} has no manual");
        assert_eq!(
            attributes("unsafe"),
            1,
            "{file}: {name} is not exported by its name"
        );
        assert!(
            function.sig.unsafety.is_some(),
            "{file}: {name} relies on its caller and does not say so"
        );
    }
}

#[test]
fn every_function_that_can_fail_takes_its_error_last() {
    for (file, function) in &exported() {
        if only_expression(function).and_then(called).as_deref() != Some("guard::call") {
            continue;
        }
        let name = &function.sig.ident;
        let last = match function.sig.inputs.last() {
            Some(syn::FnArg::Typed(argument)) => match &*argument.pat {
                syn::Pat::Ident(pattern) => pattern.ident.to_string(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        assert_eq!(last, "error", "{file}: {name}");
    }
}
