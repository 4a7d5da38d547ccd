use super::*;
use crate::Template;
use crate::text::tokenizer::testing::{byte_id, tokenizer};
use proptest::collection::vec;
use proptest::prelude::*;

/// The pieces for `ids`, and the result of `finish`.
fn pieces(mut stream: TextStream, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<_> = ids.iter().map(|&id| stream.push(id).expect("a known id")).collect();
    pieces.push(stream.finish());
    pieces
}

fn chatglm() -> Template {
    Template::named("chatglm").expect("a template that there is")
}

fn ids(tokenizer: &Tokenizer, pieces: &[&str]) -> Vec<u32> {
    pieces.iter().map(|piece| tokenizer.id(piece).expect("a known piece")).collect()
}

#[test]
fn text_comes_as_soon_as_it_is_certain() {
    let t = tokenizer();
    let ids = ids(t, &["▁hello", "▁world", "▁", ",", "▁n", "a", "▁n", "'t", "你"]);
    let expected = ["hello", " world", "", ",", "", " na", "", "n't", "你", ""];
    assert_eq!(pieces(TextStream::new(t), &ids), expected);
}

#[test]
fn characters_are_never_cut() {
    let t = tokenizer();
    let ids: Vec<_> = "你a".bytes().map(byte_id).collect();
    assert_eq!(pieces(TextStream::new(t), &ids), ["", "", "你", "a", ""]);
    assert_eq!(pieces(TextStream::new(t), &ids[..2]), ["", "", "\u{fffd}\u{fffd}"]);
}

#[test]
fn an_unknown_id_changes_nothing() {
    let t = tokenizer();
    let mut stream = TextStream::new(t);
    assert_eq!(stream.push(byte_id(0xc3)).unwrap(), "");
    assert!(matches!(stream.push(t.vocab_size() as u32), Err(Error::Ids(_))));
    assert!(matches!(stream.push(u32::MAX), Err(Error::Ids(_))));
    assert_eq!(stream.push(byte_id(0xa9)).unwrap(), "é");
}

#[test]
fn the_text_ends_before_a_stop_string() {
    let t = tokenizer();
    let ids = ids(t, &["a", "b", "a", "b", "c", "a", "b"]);
    for (stops, expected, stops_here) in [
        (&["abc"][..], "ab", true),
        (&["bab", "c"], "a", true),
        (&["abx"], "ababcab", false),
        (&["ababcab"], "", true),
        (&["ababcx", "b"], "a", true),
        (&[], "ababcab", false),
    ] {
        let mut stream = TextStream::new(t).stopping_at(stops.iter().copied()).unwrap();
        let text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(stream.stopped(), stops_here, "{stops:?}");
        assert_eq!(text + &stream.finish(), expected, "{stops:?}");
    }
}

#[test]
fn only_a_possible_stop_is_held_back() {
    let t = tokenizer();
    let ids = ids(t, &["a", "b", "a", "c", "a"]);
    let stream = TextStream::new(t).stopping_at(["abc"]).unwrap();
    assert_eq!(pieces(stream, &ids), ["", "", "ab", "ac", "", "a"]);
}

#[test]
fn stop_strings_have_a_length() {
    let t = tokenizer();
    let stream = TextStream::new(t);
    assert!(stream.clone().stopping_at([""]).is_err());
    assert!(stream.clone().stopping_at(["x".repeat(MAX_STOP + 1)]).is_err());
    assert!(stream.stopping_at(["x".repeat(MAX_STOP)]).is_ok());
}

#[test]
fn stops_are_searched_for_in_the_postprocessed_text() {
    let t = tokenizer();
    let ids = ids(t, &["▁", "你", ",", "a", "▁"]);
    assert_eq!(pieces(chatglm().stream(t), &ids).concat(), "你，a");
    let stream = chatglm().stream(t).stopping_at(["，"]).unwrap();
    assert_eq!(pieces(stream, &ids).concat(), "你");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_join_to_the_whole(seed in vec(any::<u32>(), 0..60)) {
        let t = tokenizer();
        let ids: Vec<_> = seed.iter().map(|n| n % t.vocab_size() as u32).collect();
        let whole = t.decode(&ids).unwrap();
        prop_assert_eq!(pieces(TextStream::new(t), &ids).concat(), whole.as_str());
        let postprocessed = pieces(chatglm().stream(t), &ids).concat();
        prop_assert_eq!(postprocessed, chatglm().response(&whole));
    }

    #[test]
    fn a_stop_cuts_the_whole_before_its_first(
        seed in vec(0_u32..12, 0..60),
        stop in "[ab ,.]{1,3}",
    ) {
        let t = tokenizer();
        let first = t.id("▁").unwrap();
        let ids: Vec<_> = seed.iter().map(|n| first + n).collect();
        let whole = t.decode(&ids).unwrap();
        let stream = TextStream::new(t).stopping_at([stop.as_str()]).unwrap();
        prop_assert_eq!(pieces(stream, &ids).concat(), whole.split(&stop).next().unwrap());
    }
}
