//! What an answer consists of: thoughts, texts and calls of tools, each after the other.

use glm_model::AnswerEvent;

use super::answer::Step;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    Reasoning(String),
    Text(String),
    Call {
        id: String,
        name: String,
        /// A JSON object as text, if the call is complete.
        arguments: String,
        is_complete: bool,
    },
}

/// What a step changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// A block begins, empty.
    Begin(Block),
    /// The block grows.
    Add(String),
    /// The block has ended: it is the last of [`Blocks::done`] at that time, so its index is given.
    End(usize),
}

/// The blocks of an answer that is being generated.
#[derive(Debug, Default)]
pub struct Blocks {
    pub done: Vec<Block>,
    open: Option<Block>,
    /// Why the answer has ended, as OpenAI's API names it.
    pub finish: Option<&'static str>,
    /// The stop string that has ended it.
    pub stop: Option<String>,
}

impl Blocks {
    /// What a step changes.
    pub fn step(&mut self, step: Step) -> Vec<Change> {
        let finish = step.finish_name();
        let mut changes = Vec::new();
        for part in step.parts {
            self.part(part, &mut changes);
        }
        if finish.is_some() {
            self.end(&mut changes);
            (self.finish, self.stop) = (finish, step.stop);
        }
        changes
    }

    fn part(&mut self, part: AnswerEvent, changes: &mut Vec<Change>) {
        match part {
            AnswerEvent::Text(piece) => {
                if !matches!(self.open, Some(Block::Text(_))) {
                    self.begin(Block::Text(String::new()), changes);
                }
                self.add(piece, changes);
            }
            AnswerEvent::Reasoning(piece) => {
                if !matches!(self.open, Some(Block::Reasoning(_))) {
                    self.begin(Block::Reasoning(String::new()), changes);
                }
                self.add(piece, changes);
            }
            AnswerEvent::CallStart { id, name, .. } => {
                let arguments = String::new();
                self.begin(Block::Call { id, name, arguments, is_complete: false }, changes);
            }
            AnswerEvent::CallArguments { piece, .. } => self.add(piece, changes),
            AnswerEvent::CallEnd { .. } => {
                if let Some(Block::Call { is_complete, .. }) = &mut self.open {
                    *is_complete = true;
                }
                self.end(changes);
            }
            _ => {}
        }
    }

    fn begin(&mut self, block: Block, changes: &mut Vec<Change>) {
        self.end(changes);
        self.open = Some(block.clone());
        changes.push(Change::Begin(block));
    }

    fn add(&mut self, piece: String, changes: &mut Vec<Change>) {
        if let Some(block) = &mut self.open {
            match block {
                Block::Reasoning(text) | Block::Text(text) => text.push_str(&piece),
                Block::Call { arguments, .. } => arguments.push_str(&piece),
            }
            changes.push(Change::Add(piece));
        }
    }

    fn end(&mut self, changes: &mut Vec<Change>) {
        if let Some(block) = self.open.take() {
            changes.push(Change::End(self.done.len()));
            self.done.push(block);
        }
    }

    /// The index of the block that is being generated.
    pub fn open_index(&self) -> usize {
        self.done.len()
    }
}

#[cfg(test)]
mod tests {
    use glm_model::FinishReason;

    use super::*;

    #[test]
    fn blocks_follow_each_other() {
        let text = |text: &str| AnswerEvent::Text(text.to_owned());
        let (id, name) = ("1".to_owned(), "f".to_owned());
        let parts = vec![
            AnswerEvent::Reasoning("hm".to_owned()),
            text("a"),
            text("b"),
            AnswerEvent::CallStart { index: 0, id: id.clone(), name: name.clone() },
            AnswerEvent::CallArguments { index: 0, piece: "{}".to_owned() },
            AnswerEvent::CallEnd { index: 0 },
        ];
        let mut blocks = Blocks::default();
        let changes = blocks.step(Step { parts, calls: 1, ..Step::default() });
        assert_eq!(
            changes[..2],
            [Change::Begin(Block::Reasoning(String::new())), Change::Add("hm".to_owned())]
        );
        assert_eq!(changes.iter().filter(|change| matches!(change, Change::Begin(_))).count(), 3);
        assert_eq!(changes.last(), Some(&Change::End(2)));
        let call = Block::Call { id, name, arguments: "{}".to_owned(), is_complete: true };
        assert_eq!(
            blocks.done,
            [Block::Reasoning("hm".to_owned()), Block::Text("ab".to_owned()), call]
        );
        let finish = Some(FinishReason::Stop);
        assert_eq!(blocks.step(Step { calls: 1, finish, ..Step::default() }), []);
        assert_eq!(blocks.finish, Some("tool_calls"));
    }

    #[test]
    fn a_call_that_breaks_off_is_not_complete() {
        let start = AnswerEvent::CallStart { index: 0, id: "1".to_owned(), name: "f".to_owned() };
        let mut blocks = Blocks::default();
        blocks.step(Step { parts: vec![start], calls: 1, ..Step::default() });
        let finish = Some(FinishReason::Length);
        assert_eq!(blocks.step(Step { calls: 1, finish, ..Step::default() }), [Change::End(0)]);
        assert!(matches!(blocks.done[0], Block::Call { is_complete: false, .. }));
    }
}
