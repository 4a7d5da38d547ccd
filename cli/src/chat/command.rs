//! Commands at the prompt of a chat.

/// A line at the prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Nothing,
    Say(&'a str),
    Again,
    Undo,
    Clear,
    Save(&'a str),
    Help,
    Exit,
    Unknown(&'a str),
}

pub const HELP: &str = "\
/regen      answer the last question again, with another seed
/undo       remove the last question and its answer
/clear      start a new conversation
/save FILE  write the conversation as JSON
/help       print this list
/exit       leave; Ctrl-D does the same
Ctrl-C stops an answer and keeps the text so far. Type a space before a question that begins with /.";

impl<'a> Command<'a> {
    pub fn parse(line: &'a str) -> Self {
        if line.trim().is_empty() {
            return Self::Nothing;
        }
        if !line.starts_with('/') {
            return Self::Say(line);
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (name, rest.trim()) {
            ("/regen", "") => Self::Again,
            ("/undo", "") => Self::Undo,
            ("/clear", "") => Self::Clear,
            ("/save", path) if !path.is_empty() => Self::Save(path),
            ("/help", "") => Self::Help,
            ("/exit" | "/quit", "") => Self::Exit,
            _ => Self::Unknown(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        for (line, expected) in [
            ("", Command::Nothing),
            ("  ", Command::Nothing),
            ("你好 ", Command::Say("你好 ")),
            (" /bin是什么？", Command::Say(" /bin是什么？")),
            ("/bin是什么？", Command::Unknown("/bin是什么？")),
            ("/undo ", Command::Undo),
            ("/undo it", Command::Unknown("/undo it")),
            ("/save", Command::Unknown("/save")),
            ("/save  my talk.json ", Command::Save("my talk.json")),
            ("/quit", Command::Exit),
        ] {
            assert_eq!(Command::parse(line), expected);
        }
    }
}
