//! Models by name, at a terminal.
#![cfg(all(unix, feature = "demo"))]

mod common;

use std::path::Path;

use common::cache::Home;
use common::talker;
use common::terminal::{Start, Terminal};

fn open(home: &Home, words: &[&str]) -> Terminal {
    Start::new(words).size(24, 100).home(&home.path().join("home")).open()
}

#[test]
fn removal_is_asked_for() {
    let home = Home::new();
    let folder = home.add_quantized("a/m", "int4", Path::new(&talker()));
    for (answer, remains) in [("\r", true), ("n\r", true), ("\x04", true), ("y\r", false)] {
        let mut terminal = open(&home, &["rm", "m"]);
        terminal.wait_for("Remove a/m:int4, ");
        assert!(folder.exists());
        terminal.send(answer);
        assert_eq!(terminal.exit_code(), Some(0));
        assert_eq!(folder.exists(), remains, "{answer:?}");
        let said = if remains { "a/m:int4: kept" } else { "freed" };
        assert!(terminal.screen().contains(said), "{}", terminal.screen());
    }
}

#[test]
fn the_program_alone_talks_to_the_newest_model_or_says_how_to_get_one() {
    let home = Home::new();
    let mut terminal = open(&home, &[]);
    terminal.wait_for("demonstration model of this program answers.");
    terminal.wait_for("`glm pull THUDM/chatglm-6b --quantize`");
    terminal.wait_for("> ");
    terminal.send("\x04");
    assert_eq!(terminal.exit_code(), Some(0));
    home.add_quantized("a/m", "int4", Path::new(&talker()));
    for words in [&[][..], &["-m", "m"]] {
        let mut terminal = open(&home, words);
        terminal.wait_for("(a/m:int4)");
        terminal.wait_for("> ");
        assert_eq!(terminal.screen().contains("the newest"), words.is_empty());
        terminal.send("\x04");
        assert_eq!(terminal.exit_code(), Some(0));
    }
}
