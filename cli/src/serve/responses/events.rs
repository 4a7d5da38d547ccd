//! Responses in pieces.

use axum::response::sse::Event;
use serde_json::{Value, json};

use crate::api::responses::response::{Head, IN_PROGRESS, Part, ResponseBody};
use crate::serve::answer::{Step, Usage};
use crate::serve::blocks::{Block, Blocks, Change};
use crate::serve::error::ApiError;
use crate::serve::sse;

/// Makes the events.
pub struct ResponseEvents {
    head: Head,
    blocks: Blocks,
    /// The block that is being generated: its index, its item, and what it is, empty.
    open: (usize, String, Block),
    number: usize,
}

impl ResponseEvents {
    pub fn new(head: Head) -> Self {
        let open = (0, String::new(), Block::Text(String::new()));
        Self { head, blocks: Blocks::default(), open, number: 0 }
    }

    /// The next event.
    fn event(&mut self, kind: &str, mut fields: Value) -> Event {
        fields["type"] = kind.into();
        fields["sequence_number"] = self.number.into();
        self.number += 1;
        sse::named(kind, &fields)
    }

    /// The next event of the block that is being generated. Texts are the only part of their items.
    fn of_block(&mut self, kind: &str, mut fields: Value) -> Event {
        fields["output_index"] = self.open.0.into();
        fields["item_id"] = self.open.1.as_str().into();
        if !matches!(self.open.2, Block::Call { .. }) {
            fields["content_index"] = 0.into();
        }
        self.event(kind, fields)
    }

    fn whole(&mut self, kind: &str, response: &ResponseBody) -> Event {
        self.event(kind, json!({ "response": response }))
    }

    /// What pieces of the block are called.
    fn pieces(&self) -> &'static str {
        match self.open.2 {
            Block::Reasoning(_) => "response.reasoning_text",
            Block::Text(_) => "response.output_text",
            Block::Call { .. } => "response.function_call_arguments",
        }
    }

    fn change(&mut self, index: usize, change: Change) -> Vec<Event> {
        match change {
            Change::Begin(block) => {
                let item = self.head.item(index, &block, IN_PROGRESS).empty();
                let part = Part::of(&block);
                self.open = (index, item.id().to_owned(), block);
                let added = json!({ "output_index": index, "item": item });
                let added = self.event("response.output_item.added", added);
                let part = part.map(|part| {
                    self.of_block("response.content_part.added", json!({ "part": part }))
                });
                [added].into_iter().chain(part).collect()
            }
            Change::Add(piece) => {
                let kind = format!("{}.delta", self.pieces());
                let mut fields = json!({ "delta": piece });
                if matches!(self.open.2, Block::Text(_)) {
                    fields["logprobs"] = json!([]);
                }
                vec![self.of_block(&kind, fields)]
            }
            Change::End(index) => self.ended(index),
        }
    }

    fn ended(&mut self, index: usize) -> Vec<Event> {
        let item = self.head.done(index, &self.blocks);
        let block = self.blocks.done[index].clone();
        let kind = format!("{}.done", self.pieces());
        let fields = match &block {
            Block::Reasoning(text) => json!({ "text": text }),
            Block::Text(text) => json!({ "text": text, "logprobs": [] }),
            Block::Call { name, arguments, .. } => json!({ "name": name, "arguments": arguments }),
        };
        let mut events = vec![self.of_block(&kind, fields)];
        if let Some(part) = Part::of(&block) {
            events.push(self.of_block("response.content_part.done", json!({ "part": part })));
        }
        let done = json!({ "output_index": index, "item": item });
        events.push(self.event("response.output_item.done", done));
        events
    }
}

impl sse::Events for ResponseEvents {
    fn begin(&mut self) -> Vec<Event> {
        let response = ResponseBody::begun(&self.head);
        let kinds = ["response.created", "response.in_progress"];
        kinds.map(|kind| self.whole(kind, &response)).into()
    }

    fn step(&mut self, step: Step) -> Vec<Event> {
        let mut index = self.blocks.open_index();
        let changes = self.blocks.step(step);
        let mut events = Vec::new();
        for change in changes {
            let ends = matches!(change, Change::End(_));
            events.extend(self.change(index, change));
            index += usize::from(ends);
        }
        events
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let response = ResponseBody::finished(&self.head, &self.blocks, usage);
        let kind = format!("response.{}", response.status);
        vec![self.whole(&kind, &response)]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        let error = error.body().error;
        let response =
            ResponseBody::failed(&self.head, error.code.unwrap_or(error.kind), &error.message);
        vec![self.whole("response.failed", &response)]
    }
}
