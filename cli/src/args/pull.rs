//! The arguments of `glm pull`.

use clap::{Args, ValueEnum};

use super::{bits, group, threads};
use crate::repository::Repository;

const EXAMPLES: &str = "\
Only the files that this program reads are downloaded, into the cache of the Hugging Face hub; what Python downloaded there is used. \
The folder is printed on stdout. A download that was stopped goes on with the same command.

With --quantize, each file of weights is quantized as it arrives and then removed: far less disk is needed.

Environment: HF_ENDPOINT (a mirror), HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE as in Python; MODELSCOPE_ENDPOINT, \
MODELSCOPE_API_TOKEN; HTTPS_PROXY.

Examples:
  glm pull THUDM/chatglm-6b --quantize
  glm pull zai-org/glm-4-9b-chat-hf --quantize=8 --group 128
  glm pull THUDM/chatglm3-6b --from modelscope
  HF_ENDPOINT=https://hf-mirror.com glm pull THUDM/chatglm-6b";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Pull {
    /// The repository, such as THUDM/chatglm-6b.
    #[arg(value_name = "NAME")]
    pub repository: Repository,
    /// Where the repository is. ModelScope has its own names of owners: THUDM and zai-org are ZhipuAI there.
    #[arg(long, value_name = "HUB", default_value = "huggingface")]
    pub from: Hub,
    /// A branch, a tag or a commit. [default: main; on ModelScope, master]
    #[arg(long, value_name = "REV")]
    pub revision: Option<String>,
    /// Quantize the weights as they arrive, to 4 bits or 8. The result is called NAME:int4 or the like.
    #[arg(long, value_name = "BITS", num_args = 0..=1, require_equals = true, default_missing_value = "4", value_parser = bits)]
    pub quantize: Option<usize>,
    /// Weights that share a scale: 32, 64 or 128. Fewer are more exact, more take less memory. [default: 64; 32 without a minimum]
    #[arg(long, value_name = "N", value_parser = group, requires = "quantize")]
    pub group: Option<usize>,
    /// Store only a scale for each group, no minimum, for 4 bits: less exact at the same size.
    #[arg(long, requires = "quantize")]
    pub symmetric: bool,
    /// Threads that quantize; by default one for each fast core.
    #[arg(short, long, value_name = "N", value_parser = threads, requires = "quantize")]
    pub threads: Option<usize>,
}

/// A hub of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Hub {
    HuggingFace,
    ModelScope,
}
