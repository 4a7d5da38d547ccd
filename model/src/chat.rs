//! Conversations and texts with gaps, as ChatGLM-6B wants to see them, and the polish of its
//! answers.
//!
//! A first question is the prompt as it is. With history, every round is numbered from 0:
//!
//! ```text
//! [Round 0]
//! 问：question
//! 答：answer
//! [Round 1]
//! 问：question
//! 答：
//! ```

use crate::error::{Error, Result};
use crate::rewrite::Replace;
use crate::tokenizer::{Tokenizer, is_space};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation; ChatGLM-6B knows none.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message by `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: content.into() }
    }
}

/// The prompt of a conversation as text: the question alone, or all rounds.
///
/// # Errors
/// Unless user and assistant take turns, beginning and ending with the user.
pub fn prompt(messages: &[Message]) -> Result<String> {
    check(messages)?;
    let [history @ .., question] = messages else { return Ok(String::new()) };
    if history.is_empty() {
        return Ok(question.content.clone());
    }
    let mut text = String::new();
    for (round, turn) in messages.chunks(2).enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "[Round {round}]\n问：{}\n答：", turn[0].content);
        if let Some(answer) = turn.get(1) {
            let _ = writeln!(text, "{}", answer.content);
        }
    }
    Ok(text)
}

fn check(messages: &[Message]) -> Result<()> {
    let problem = |what: String| Err(Error::Prompt(what));
    for (i, message) in messages.iter().enumerate() {
        match (message.role, i % 2) {
            (Role::System, _) => {
                return problem(format!("message {i}: ChatGLM-6B takes no system messages"));
            }
            (Role::User, 0) | (Role::Assistant, 1) => {}
            (Role::User, _) => {
                return problem(format!("message {i}: the user speaks twice in a row"));
            }
            (Role::Assistant, _) if i == 0 => return problem("the user must speak first".into()),
            (Role::Assistant, _) => {
                return problem(format!("message {i}: the assistant speaks twice in a row"));
            }
        }
    }
    match messages.len() {
        0 => problem("the conversation is empty".into()),
        n if n % 2 == 0 => problem("the conversation must end with a message by the user".into()),
        _ => Ok(()),
    }
}

/// The ids of a conversation: its [`prompt`], then `[gMASK]` and `<sop>`.
///
/// # Errors
/// As [`prompt`] and [`Tokenizer::encode`].
pub fn prompt_ids(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode(&prompt(messages)?)?;
    let special = tokenizer.special();
    ids.extend([special.gmask, special.bos]);
    Ok(ids)
}

/// A kind of gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blank {
    /// `[MASK]`: a few words.
    Mask,
    /// `[gMASK]`: a text of any length.
    Gmask,
}

impl Blank {
    const ALL: [Blank; 2] = [Blank::Mask, Blank::Gmask];

    /// How it is written in a text.
    pub fn name(self) -> &'static str {
        match self {
            Blank::Mask => "[MASK]",
            Blank::Gmask => "[gMASK]",
        }
    }
}

/// The gaps of a text: all of one kind, for the published code looks for `[gMASK]` first wherever it stands.
///
/// # Errors
/// If there are none, or some of each kind.
pub fn blank(text: &str) -> Result<Blank> {
    let mut found = Blank::ALL.into_iter().filter(|blank| text.contains(blank.name()));
    match (found.next(), found.next()) {
        (Some(blank), None) => Ok(blank),
        (None, _) => Err(Error::Prompt("the text has no [MASK] or [gMASK] to fill".into())),
        _ => Err(Error::Prompt(
            "the text has both [MASK] and [gMASK]: ChatGLM-6B fills those of one kind".into(),
        )),
    }
}

/// The ids of a text with gaps, the first of which the model is to fill: the text with their ids in their place, blanks
/// around them dropped, then `<sop>`.
///
/// # Errors
/// As [`blank`] and [`Tokenizer::encode`].
pub fn fill_prompt(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let blank = blank(text)?;
    let special = tokenizer.special();
    let id = match blank {
        Blank::Mask => special.mask,
        Blank::Gmask => special.gmask,
    };
    let mut ids = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(blank.name()) {
        ids.extend(tokenizer.encode(before.trim_end_matches(is_space))?);
        ids.push(id);
        rest = after.trim_start_matches(is_space);
    }
    ids.extend(tokenizer.encode(rest)?);
    ids.push(special.bos);
    Ok(ids)
}

/// An answer as the official `chat()` returns it: white space at both ends removed, the placeholder
/// `[[训练时间]]` filled in, and `,` `!` `:` `;` `?` next to a Chinese character made full-width.
pub fn response(decoded: &str) -> String {
    let mut polish = Polish::default();
    let mut out = String::new();
    polish.push(decoded, &mut out);
    polish.finish(&mut out);
    out
}

/// [`response`] for a text that arrives in parts.
#[derive(Debug, Clone)]
pub(crate) struct Polish {
    /// White space that is dropped if the text ends with it; `None` until the text has begun.
    spaces: Option<String>,
    date: Replace,
    after_chinese: bool,
    /// Punctuation that depends on the next character.
    held: Option<char>,
}

impl Default for Polish {
    fn default() -> Self {
        let date = Replace::new("[[训练时间]]", "2023年");
        Polish { spaces: None, date, after_chinese: false, held: None }
    }
}

impl Polish {
    pub(crate) fn push(&mut self, part: &str, out: &mut String) {
        let mut stripped = String::new();
        for c in part.chars() {
            match &mut self.spaces {
                None if is_space(c) => {}
                Some(spaces) if is_space(c) => spaces.push(c),
                spaces => {
                    stripped.push_str(spaces.get_or_insert_default());
                    *spaces = Some(String::new());
                    stripped.push(c);
                }
            }
        }
        let mut dated = String::new();
        self.date.push(&stripped, &mut dated);
        self.widen(&dated, out);
    }

    pub(crate) fn finish(&mut self, out: &mut String) {
        let mut dated = String::new();
        self.date.finish(&mut dated);
        self.widen(&dated, out);
        out.extend(self.held.take());
    }

    /// Makes punctuation next to a Chinese character full-width.
    fn widen(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            let is_chinese = ('\u{4e00}'..='\u{9fff}').contains(&c);
            if let Some(held) = self.held.take() {
                out.push(full_width(held).filter(|_| is_chinese).unwrap_or(held));
            }
            match full_width(c) {
                Some(wide) if self.after_chinese => out.push(wide),
                Some(_) => self.held = Some(c),
                None => out.push(c),
            }
            self.after_chinese = is_chinese;
        }
    }
}

fn full_width(c: char) -> Option<char> {
    Some(match c {
        ',' => '，',
        '!' => '！',
        ':' => '：',
        ';' => '；',
        '?' => '？',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::testing::tokenizer;
    use Role::{Assistant, System, User};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn conversation(roles: &[Role]) -> Vec<Message> {
        roles.iter().zip('a'..).map(|(&role, c)| Message::new(role, c)).collect()
    }

    #[test]
    fn the_first_question_stands_alone_and_later_ones_in_rounds() {
        assert_eq!(prompt(&conversation(&[User])).unwrap(), "a");
        let three = prompt(&conversation(&[User, Assistant, User])).unwrap();
        assert_eq!(three, "[Round 0]\n问：a\n答：b\n[Round 1]\n问：c\n答：");
    }

    #[test]
    fn other_conversations_are_refused() {
        for (roles, problem) in [
            (&[][..], "empty"),
            (&[User, Assistant], "end with"),
            (&[User, User], "user speaks twice"),
            (&[Assistant], "first"),
            (&[User, Assistant, Assistant], "assistant speaks twice"),
            (&[System, User], "system"),
        ] {
            let error = prompt(&conversation(roles)).unwrap_err().to_string();
            assert!(error.contains(problem), "{roles:?}: {error}");
        }
    }

    #[test]
    fn messages_have_their_usual_json() {
        let message: Message =
            serde_json::from_str(r#"{"role": "assistant", "content": "好"}"#).unwrap();
        assert_eq!(message, Message::new(Assistant, "好"));
        assert!(serde_json::to_string(&message).unwrap().contains(r#""role":"assistant""#));
    }

    #[test]
    fn a_prompt_ends_with_gmask_and_sop() {
        let t = tokenizer();
        let ids = prompt_ids(t, &conversation(&[User])).unwrap();
        assert_eq!(ids, [t.id("▁a").unwrap(), t.special().gmask, t.special().bos]);
    }

    #[test]
    fn gaps_get_their_ids_and_only_sop_follows() {
        let t = tokenizer();
        let special = t.special();
        let (mask, gmask, bos) = (special.mask, special.gmask, special.bos);
        let [a, b] = ["▁a", "▁b"].map(|piece| t.id(piece).unwrap());
        for (text, expected) in [
            ("a [MASK] b", vec![a, mask, b, bos]),
            ("a[gMASK]\nb", vec![a, gmask, b, bos]),
            ("[MASK][MASK] a [MASK]", vec![mask, mask, a, mask, bos]),
            ("[gMASK] b [gMASK]", vec![gmask, b, gmask, bos]),
        ] {
            assert_eq!(fill_prompt(t, text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn gaps_are_of_one_kind() {
        assert_eq!(blank("a [MASK] b [MASK]").unwrap(), Blank::Mask);
        assert_eq!(blank("[gMASK]").unwrap(), Blank::Gmask);
        for text in ["", "a", "[mask]", "[MASK] [gMASK]"] {
            assert!(matches!(fill_prompt(tokenizer(), text), Err(Error::Prompt(_))), "{text:?}");
        }
    }

    #[test]
    fn answers_are_polished() {
        for (decoded, expected) in [
            (" 你好,世界! \n", "你好，世界！"),
            ("a, b!", "a, b!"),
            ("3:中;,中?", "3：中；，中？"),
            ("中,,a", "中，,a"),
            ("[[训练时间]],a", "2023年，a"),
            ("[[训练", "[[训练"),
            ("\u{1f} ", ""),
        ] {
            assert_eq!(response(decoded), expected, "{decoded:?}");
        }
    }

    /// The official way: passes over the whole text.
    fn official(text: &str) -> String {
        let mut text: Vec<char> =
            text.trim_matches(is_space).replace("[[训练时间]]", "2023年").chars().collect();
        let is_chinese =
            |c: Option<&char>| c.is_some_and(|c| ('\u{4e00}'..='\u{9fff}').contains(c));
        for mark in [',', '!', ':', ';', '?'] {
            for beside in [-1, 1] {
                for i in 0..text.len() {
                    let neighbour = i.checked_add_signed(beside).and_then(|i| text.get(i));
                    if text[i] == mark && is_chinese(neighbour) {
                        text[i] = full_width(mark).unwrap();
                    }
                }
            }
        }
        text.into_iter().collect()
    }

    proptest! {
        #[test]
        fn parts_are_polished_like_the_whole(
            parts in vec("[a中 \n,!?]{0,4}|\\[\\[训练时间\\]\\]|\\[\\[", 0..8),
        ) {
            let mut polish = Polish::default();
            let mut out = String::new();
            parts.iter().for_each(|part| polish.push(part, &mut out));
            polish.finish(&mut out);
            prop_assert_eq!(out, official(&parts.concat()));
        }
    }
}
