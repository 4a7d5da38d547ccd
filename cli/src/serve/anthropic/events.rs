//! Messages in pieces.

use axum::response::sse::Event;
use serde_json::{Value, json};

use super::error::AnthropicError;
use super::response::{ContentBlock, Head, MessageBody, MessageUsage, stop_reason};
use crate::serve::answer::{Step, Usage};
use crate::serve::blocks::{Block, Blocks, Change};
use crate::serve::error::ApiError;
use crate::serve::sse;

/// Makes the events.
pub struct MessageEvents {
    /// The message that begins.
    begun: MessageBody,
    blocks: Blocks,
    /// The names of the pieces of the block that is being generated: their type and their field.
    piece: [&'static str; 2],
}

impl MessageEvents {
    pub fn new(head: Head, usage: Usage) -> Self {
        let begun = MessageBody::begun(head, usage);
        Self { begun, blocks: Blocks::default(), piece: TEXT }
    }

    fn change(&mut self, index: usize, change: Change) -> Event {
        match change {
            Change::Begin(block) => {
                self.piece = match block {
                    Block::Text(_) => TEXT,
                    Block::Reasoning(_) => ["thinking_delta", "thinking"],
                    Block::Call { .. } => ["input_json_delta", "partial_json"],
                };
                let block = ContentBlock::begun(block);
                event("content_block_start", json!({ "index": index, "content_block": block }))
            }
            Change::Add(text) => {
                let [kind, field] = self.piece;
                let delta = json!({ "type": kind, field: text });
                event("content_block_delta", json!({ "index": index, "delta": delta }))
            }
            Change::End(index) => event("content_block_stop", json!({ "index": index })),
        }
    }
}

const TEXT: [&str; 2] = ["text_delta", "text"];

fn event(kind: &str, mut fields: Value) -> Event {
    fields["type"] = kind.into();
    sse::named(kind, &fields)
}

impl sse::Events for MessageEvents {
    fn begin(&mut self) -> Vec<Event> {
        let start = event("message_start", json!({ "message": self.begun }));
        vec![start, event("ping", json!({}))]
    }

    fn step(&mut self, step: Step) -> Vec<Event> {
        let mut index = self.blocks.open_index();
        let changes = self.blocks.step(step);
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            let ends = matches!(change, Change::End(_));
            events.push(self.change(index, change));
            index += usize::from(ends);
        }
        events
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let (reason, stop) = (stop_reason(&self.blocks), &self.blocks.stop);
        let delta = json!({ "stop_reason": reason, "stop_sequence": stop });
        let usage = MessageUsage::from(usage);
        let delta = event("message_delta", json!({ "delta": delta, "usage": usage }));
        vec![delta, event("message_stop", json!({}))]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        vec![sse::named("error", &AnthropicError::from(error))]
    }
}
