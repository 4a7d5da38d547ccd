//! However a text is cut into ids, a stream with stop strings gives the same text, and ends where the first stop string is complete.

#![no_main]

use std::sync::LazyLock;

use glm_model::{TextStream, Tokenizer};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(glm_fuzz::tokenizer);

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    text: Vec<Piece<'a>>,
    stops: Vec<Stop<'a>>,
    /// Where the text is cut before it is encoded.
    cuts: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Piece<'a> {
    Any(&'a str),
    /// Few letters, so that stop strings overlap with themselves.
    Letters(u8),
    Stop(u8),
}

#[derive(Debug, Arbitrary)]
enum Stop<'a> {
    Any(&'a str),
    Letters(u8),
}

fn letters(bits: u8) -> String {
    (0..4).map(|at| ['a', 'b', '你', '\n'][usize::from(bits >> (2 * at) & 3)]).collect()
}

fn run(ids: &[u32], stops: &[String]) -> (String, Option<String>) {
    let mut stream = TextStream::new(&TOKENIZER).stopping_at(stops).expect("stop strings");
    let mut text = String::new();
    for &id in ids {
        let piece = stream.push(id).expect("a known id");
        text += &piece;
    }
    text += &stream.finish();
    (text, stream.stopped_by().map(str::to_owned))
}

fuzz_target!(|case: Case| {
    let stops: Vec<String> = case
        .stops
        .iter()
        .take(4)
        .map(|stop| match stop {
            Stop::Any(stop) => (*stop).to_owned(),
            Stop::Letters(bits) => letters(*bits),
        })
        .collect();
    if stops.iter().any(|stop| !(1..=1024).contains(&stop.len())) {
        assert!(TextStream::new(&TOKENIZER).stopping_at(&stops).is_err());
        return;
    }
    let text: String = case
        .text
        .iter()
        .take(64)
        .map(|piece| match piece {
            Piece::Any(text) => (*text).to_owned(),
            Piece::Letters(bits) => letters(*bits),
            Piece::Stop(at) => {
                stops.get(usize::from(*at) % stops.len().max(1)).cloned().unwrap_or_default()
            }
        })
        .collect();
    // Names of special ids are no text, and no such text is the same in pieces.
    if text.contains(['<', '[', '|']) {
        return;
    }
    let whole = TOKENIZER.encode(&text).expect("a short text");
    let decoded = TOKENIZER.decode(&whole).expect("known ids");
    let (mut pieces, mut rest) = (Vec::new(), &*text);
    for &cut in case.cuts.iter().take(64) {
        let cut =
            (0..=usize::from(cut % 8).min(rest.len())).rev().find(|&at| rest.is_char_boundary(at));
        let (piece, after) = rest.split_at(cut.unwrap_or(0));
        pieces.extend(TOKENIZER.encode(piece).expect("a short text"));
        rest = after;
    }
    pieces.extend(TOKENIZER.encode(rest).expect("a short text"));
    let special = TOKENIZER.encode("").expect("no text");
    assert!(special.is_empty(), "the tokenizer adds no ids");
    let found = run(&whole, &stops);
    assert_eq!(found, run(&pieces, &stops));
    let ends = stops.iter().enumerate().filter_map(|(index, stop)| {
        decoded.find(stop.as_str()).map(|at| (at + stop.len(), at, index))
    });
    match ends.min() {
        Some((_, at, index)) => {
            assert_eq!(found, (decoded[..at].to_owned(), Some(stops[index].clone())))
        }
        None => assert_eq!(found, (decoded, None)),
    }
});
