//! The arguments of `glm config`.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use crate::settings::NAMES;

const EXAMPLES: &str = "\
A setting has the name of its flag. A flag comes first, then the environment (GLM_MODEL, GLM_THREADS), then the file, then the default \
of the program or of the model.

Examples:
  glm config
  glm config set model THUDM/chatglm-6b:int4
  glm config set temperature 0.5
  glm config unset temperature
  $EDITOR \"$(glm config path)\"";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Config {
    #[command(subcommand)]
    pub edit: Option<Edit>,
    /// Print JSON: a list of name, value and origin.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Edit {
    /// Write a setting to the file.
    Set {
        /// The setting.
        #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(NAMES))]
        name: String,
        /// Its value; `stop` takes several.
        #[arg(value_name = "VALUE", required = true, allow_hyphen_values = true)]
        values: Vec<String>,
    },
    /// Remove a setting from the file.
    Unset {
        /// The setting.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Print the path of the file.
    Path,
}
