//! Every bound of the program on what a person, a server or a client may give it. Those on a model's files and on texts are in the
//! library.

/// What a person types or gives in a file.
pub mod input {
    /// Maximum size in bytes of a text, a list of ids or a conversation: far more than fits in a context.
    pub const MAX_INPUT: usize = 16 << 20;

    /// Bytes of the longest text that is read back.
    pub const MAX_EDITED: u64 = 16 << 20;

    /// The most paths that are offered.
    pub const MAX_COMPLETIONS: usize = 1000;

    /// Entries that are kept.
    pub const MAX_ENTRIES: usize = 1000;

    /// Bytes of the longest text that is kept; a longer one is a pasted document.
    pub const MAX_ENTRY: usize = 64 << 10;

    /// Bytes of the largest file that is read: far more than we write.
    pub const MAX_HISTORY: u64 = 64 << 20;

    /// Largest file that is read.
    pub const MAX_SETTINGS: u64 = 1 << 20;

    /// Most bytes of a line that are kept: more than a context holds, as in `glm serve`.
    pub const MAX_LINE: usize = 20 << 20;

    /// Most bytes of an answer in a file that is read.
    pub const MAX_OUTPUT_LINE: u64 = 1 << 30;
}

/// Files of the folders of models.
pub mod model {
    /// Most bytes of a configuration that is not of a supported model.
    pub const MAX_CONFIG: u64 = 1 << 20;

    /// Most bytes of a manifest. Those of the library have about one thousand.
    pub const MAX_MANIFEST: u64 = 1 << 20;

    /// Most bytes of the file that says what a model was made from: a commit, which has 40 characters.
    pub const MAX_ORIGIN: u64 = 4 << 10;

    /// Most bytes of the file of a revision, which holds a commit.
    pub const MAX_REF: u64 = 1 << 10;

    /// Most bytes of an owner's or a repository's name, as on the Hugging Face hub.
    pub const MAX_NAME: usize = 96;
}

/// Answers of model hubs.
pub mod hub {
    use std::time::Duration;

    /// Most bytes of a configuration or an index.
    pub const MAX_SMALL: u64 = 32 << 20;

    /// Most bytes of a part of a file that is kept in memory.
    pub const MAX_RANGE: u64 = 256 << 20;

    /// Most bytes of an answer that describes a repository.
    pub const MAX_ANSWER: usize = 16 << 20;

    /// Most files of a repository.
    pub const MAX_FILES: usize = 100_000;

    /// Most bytes of a revision, as of a file name.
    pub const MAX_REVISION: usize = 255;

    /// Most bytes of a token.
    pub const MAX_TOKEN: usize = 4 << 10;

    /// A connection on which nothing arrives for so long is given up.
    pub const STALLED: Duration = Duration::from_secs(30);

    /// Most redirections of a request.
    pub const MAX_REDIRECTS: usize = 10;

    /// Most bytes of the explanation of an error that are read.
    pub const MAX_REASON: usize = 4 << 10;

    /// The longest wait that a server may ask for.
    pub const MAX_WAIT: Duration = Duration::from_secs(300);
}

/// Requests to the server, and lines of a batch.
pub mod request {
    /// Most names of unknown fields that are remembered.
    pub const MOST_NAMES: usize = 100;

    /// The characters of a name that are shown.
    pub const LONGEST_NAME: usize = 64;

    /// Most alternatives of a token.
    pub const MOST_LOGPROBS: usize = 20;

    /// Most alternatives of a token, as in OpenAI's API.
    pub const MOST_COMPLETION_LOGPROBS: usize = 5;

    /// Longest name of a tool in bytes.
    pub const MOST_NAME: usize = 128;

    /// Most stop strings of a request.
    pub const MOST_STOPS: usize = 16;

    /// The highest value of `--max-sequences`.
    pub const MOST_SEQUENCES: u64 = 1024;
}

/// Clients of the server.
#[cfg(feature = "serve")]
pub mod server {
    use std::time::Duration;

    /// Most blanks of a text.
    pub const MOST_BLANKS: usize = 64;

    /// Most bytes of headers.
    pub const HEADER_BYTES: usize = 64 << 10;

    /// Most lines of headers.
    pub const HEADER_LINES: usize = 100;

    /// Most connections at a time. Others wait to be accepted.
    pub const CONNECTIONS: usize = 512;

    /// Most connections of an address of another machine: half of the places are left to others.
    pub const OF_ADDRESS: usize = CONNECTIONS / 2;

    /// Bytes of a response that the system keeps for a client. It would keep megabytes for one that takes nothing.
    pub const SEND_BUFFER: usize = 128 << 10;

    /// How long answers that were ended have to say so, and how long a file that is not finished has to be removed.
    pub const LAST_WORDS: Duration = Duration::from_secs(2);

    /// Fewest characters of a key. A shorter one could be guessed.
    pub const MIN_KEY: usize = 16;

    /// Most bytes of the file of a key. A longer one would fit in no request.
    pub const MAX_KEY: usize = HEADER_BYTES;

    /// Events that a client may be behind. More than that is a client that does not read.
    pub const BEHIND: usize = 8192;

    /// Texts that are encoded at the same time.
    pub const TEXTS: usize = 2;

    /// Grammars that are compiled at the same time.
    pub const GRAMMARS: usize = 2;

    /// Bytes a second that a client must take, on average over the time in which it holds up the response. A limit of the time without any
    /// progress is not enough: a client could take a few bytes each time before it is over.
    pub const SLOWEST: u32 = 4 << 10;
}
