//! What the program answers, through the program itself.

use std::path::Path;
use std::process::{Command, Output};

/// Runs picket in a folder of its own, where `a.toml` has this text.
fn picket(arguments: &[&str], text: &[u8]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), text).unwrap();
    let Output { status, stdout, stderr } = run(arguments, folder.path());
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn run(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_picket"))
        .args(arguments)
        .current_dir(folder)
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap()
}

#[test]
fn a_file_that_is_no_utf_8_is_refused_at_its_place() {
    let (code, out, told) = picket(&["validate", "a.toml"], b"[probe.a]\nevery = \"5\xffs\"\n");
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(told.contains("error: this is no UTF-8\n  --> a.toml:2:11"), "{told}");
}

#[test]
fn a_probe_that_is_asked_for_and_left_out_is_told_with_the_reason() {
    let text = b"[probe.here]\nhttp = { url = 'http://127.0.0.1:1/' }\n\
        [probe.there]\nonly = { stage = 'beta' }\nhttp = { url = 'http://127.0.0.1:1/' }\n";
    let (code, out, told) = picket(&["check", "a.toml", "--only", "there"], text);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(told.contains("there: stage prod is not one of beta"), "{told}");
    let (code, _, told) = picket(&["check", "a.toml", "--only", "nowhere"], text);
    assert_eq!(code, Some(2));
    assert!(told.contains("no probe fits --only nowhere: there are here"), "{told}");
}
