//! Every bound of the program on what a person, a server or a client may give it. Those on a model's files and on texts are in the
//! library.

/// What a person types or gives in a file.
pub mod input {
    /// Maximum size in bytes of a text, a list of ids or a conversation: far more than fits in a context.
    pub const MAX_INPUT: usize = 16 << 20;

    /// Bytes of the longest text that is read back from an editor: as much as one that is typed.
    pub const MAX_EDITED: u64 = 16 << 20;

    /// The most paths that are offered. A folder may have millions, and nobody reads more.
    pub const MAX_COMPLETIONS: usize = 1000;

    /// Entries that are kept. All are read and searched at every start.
    pub const MAX_ENTRIES: usize = 1000;

    /// Bytes of the longest text that is kept; a longer one is a pasted document.
    pub const MAX_ENTRY: usize = 64 << 10;

    /// Bytes of the largest file that is read: far more than we write.
    pub const MAX_HISTORY: u64 = 64 << 20;

    /// Largest file of settings that is read. Ours have some hundred bytes.
    pub const MAX_SETTINGS: u64 = 1 << 20;

    /// Most bytes of a line that are kept: more than a context holds, as in `glm serve`.
    pub const MAX_LINE: usize = 20 << 20;

    /// Most bytes of a batch that does not come from a regular file: it is copied to a temporary one.
    pub const MAX_COPIED: u64 = 4 << 30;

    /// Most requests of a batch. Each takes some 60 bytes of memory, and OpenAI's API allows 50 000.
    pub const MAX_REQUESTS: usize = 10_000_000;

    /// Most bytes of an answer in a file that is read: the longest answer with the alternatives of each of its tokens.
    pub const MAX_OUTPUT_LINE: u64 = 1 << 30;
}

/// Files of the folders of models.
pub mod model {
    /// Most bytes of a configuration that is not of a supported model. Published ones have some kilobytes.
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

    /// Most bytes of a configuration or an index; both are read as a whole. Indices have tens of kilobytes to some megabytes.
    pub const MAX_SMALL: u64 = 32 << 20;

    /// Most bytes of a part of a file that is kept in memory. Headers of weights have at most 16 MB; weights are read in pieces.
    pub const MAX_RANGE: u64 = 256 << 20;

    /// Most bytes of an answer that describes a repository. That of a thousand files has some hundred kilobytes.
    pub const MAX_ANSWER: usize = 16 << 20;

    /// Most files of a repository, which are all kept in memory. Those of the family have some hundred.
    pub const MAX_FILES: usize = 100_000;

    /// Most bytes of a revision, as of a file name, which it becomes in the cache.
    pub const MAX_REVISION: usize = 255;

    /// Most bytes of a token for a hub. Those of Hugging Face have 37.
    pub const MAX_TOKEN: usize = 4 << 10;

    /// A connection on which nothing arrives for so long is given up.
    pub const STALLED: Duration = Duration::from_secs(30);

    /// Most redirections of a request: hubs need two or three, and a ring has no end.
    pub const MAX_REDIRECTS: usize = 10;

    /// Most bytes of the explanation of an error that are read, of which a person sees a line.
    pub const MAX_REASON: usize = 4 << 10;

    /// The longest wait that a server may ask for. A person would rather know than wait longer.
    pub const MAX_WAIT: Duration = Duration::from_secs(300);
}

/// Requests to the server, and lines of a batch.
pub mod request {
    /// Most names of unknown fields that are remembered, each to be logged once. A client could send new ones for ever.
    pub const MOST_NAMES: usize = 100;

    /// The characters of a name that are shown: a log has a line for it.
    pub const LONGEST_NAME: usize = 64;

    /// Most alternatives of a token, as in OpenAI's API for conversations.
    pub const MOST_LOGPROBS: usize = 20;

    /// Most alternatives of a token, as in OpenAI's API for completions.
    pub const MOST_COMPLETION_LOGPROBS: usize = 5;

    /// Longest name of a tool in bytes. OpenAI's API allows 64, and clients add prefixes.
    pub const MOST_NAME: usize = 128;

    /// Most stop strings of a request. OpenAI's API allows four, and every token is compared with all.
    pub const MOST_STOPS: usize = 16;

    /// The highest value of `--max-sequences`. Each sequence takes keys and values of a whole context.
    pub const MOST_SEQUENCES: u64 = 1024;
}

/// Clients of the server.
#[cfg(feature = "serve")]
pub mod server {
    use std::time::Duration;

    /// Most blanks of a text. Each is a generation of its own.
    pub const MOST_BLANKS: usize = 64;

    /// Most bytes of headers, which are kept until the request has been read. Browsers send a few kilobytes.
    pub const HEADER_BYTES: usize = 64 << 10;

    /// Most lines of headers. Browsers send twenty or so.
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

    /// Texts that are encoded at the same time: each takes a core, which the model needs, and memory of many times its length.
    pub const TEXTS: usize = 2;

    /// Grammars that are compiled at the same time, for the same reasons.
    pub const GRAMMARS: usize = 2;

    /// Bytes a second that a client must take, on average over the time in which it holds up the response. A limit of the time without any
    /// progress is not enough: a client could take a few bytes each time before it is over.
    pub const SLOWEST: u32 = 4 << 10;
}
