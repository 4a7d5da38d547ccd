//! The argument that says whether a model is to think.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// The words for both choices.
pub const ON: &str = "on";
pub const OFF: &str = "off";

#[derive(Debug, Clone, Copy, Args)]
pub struct Thinking {
    /// Whether a model that can think does so before it answers; requests may say otherwise. Thoughts are no part of the answer: a terminal
    /// shows them, and programs get them as `reasoning_content`. [default: as the template of the model says]
    #[arg(long, value_name = "on|off", hide_possible_values = true, value_parser = PossibleValuesParser::new([ON, OFF]).map(|word| word == ON))]
    pub think: Option<bool>,
}
