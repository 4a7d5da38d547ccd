//! Tokens of a request, as responses report them.

use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Usage;

/// Tokens of a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageBody {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PromptDetails {
    /// Tokens of the prompt that were not computed again.
    cached_tokens: usize,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CompletionDetails {
    /// Tokens of the answer that are thoughts, with the tags around them.
    reasoning_tokens: usize,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt,
            completion_tokens: usage.answer,
            total_tokens: usage.prompt + usage.answer,
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached },
            completion_tokens_details: CompletionDetails { reasoning_tokens: usage.reasoning },
        }
    }
}
