//! Every bound on what a file, a text or a request may be: its size, its depth, and the time that it may take.
//!
//! Nothing that a model's folder or a conversation holds is trusted. What passes a bound is refused with an error that names it. Bounds
//! that follow from a format, such as offsets inside of a file, are checked by its reader.

/// Texts and ids.
pub(crate) mod text {
    /// Longest text in bytes that is encoded, which bounds time and memory. Contexts are a thousand times shorter.
    pub(crate) const MAX_TEXT: usize = 16 << 20;

    /// Ids are below this. The models have some hundred thousand.
    pub(crate) const MAX_ID: u32 = 1 << 24;

    /// Longest stop string in bytes. The cost of every id grows with it.
    pub(crate) const MAX_STOP: usize = 1024;
}

/// Files of tokenizers.
pub(crate) mod tokenizer {
    use super::text::MAX_TEXT;

    /// Largest file that is read, which bounds the memory for a damaged file. That of ChatGLM-6B has 2.7 MB.
    pub(crate) const MAX_SENTENCEPIECE: usize = 16 << 20;

    /// Longest run of blanks that has a piece of its own. The published vocabularies have pieces for 2 to 80 blanks.
    pub(crate) const LONGEST_RUN: usize = 80;

    /// Longest piece in bytes; 48 in ChatGLM-6B. The cost of a text grows with it.
    pub(crate) const MAX_PIECE: usize = 512;

    /// How many times longer normalization can make a text: a blank takes three bytes, and U+FDFA becomes eleven times as long.
    pub(crate) const MAX_GROWTH: usize = 16;

    /// Longest normalized text in bytes.
    pub(crate) const MAX_NORMALIZED: usize = 2 * MAX_TEXT;

    /// Longest key in bytes that is searched for in the map. The keys of NFKC have at most a dozen bytes. A damaged map may have
    /// cycles, and without a limit the time for a text would be quadratic.
    pub(crate) const MAX_KEY: usize = 64;

    /// Longest replacement in bytes. The longest in NFKC, that of U+FDFA, has 33.
    pub(crate) const MAX_REPLACEMENT: usize = 256;

    /// Longest token in bytes; 128 in GLM-4.
    pub(crate) const MAX_TOKEN: usize = 1024;

    /// Most work of split patterns from a file for a text, some nanoseconds each: the base, for the states that are made, and the addition
    /// for each byte. A text of all characters takes 180 million for GLM-4's pattern. A pattern looks once or twice at a byte, unless it
    /// looks to the end of the text for every word, which is quadratic.
    pub(crate) const MAX_SPLIT_WORK: [u64; 2] = [1 << 29, 1 << 8];

    /// Most states of a split pattern from a file. That of GLM-4 has some thousand, and each may be looked at for each byte.
    pub(crate) const MAX_PATTERN_STATES: u64 = 1 << 15;

    /// Longest pattern in bytes. That of GLM-4 has 115.
    pub(crate) const MAX_PATTERN: usize = 4096;

    /// Largest compiled pattern in bytes. That of GLM-4 takes some hundred thousand.
    pub(crate) const MAX_PATTERN_SIZE: usize = 4 << 20;

    /// Most steps that split a text into words, because each takes memory for its pattern. Published files have two.
    pub(crate) const MAX_CUTS: usize = 8;

    /// Most ids before a text, and after it. Published files have two.
    pub(crate) const MAX_AROUND: usize = 64;

    /// Most tokens. Models have about 151 000, and each takes much more memory here than in the file.
    pub(crate) const MAX_TOKENS: usize = 1 << 20;

    /// Most lines of `merges.txt`. GPT-2 has 50 000, and a line of four bytes takes a hundred in memory.
    pub(crate) const MAX_MERGES: usize = 1 << 20;

    /// Upper bound of `num_image_tokens`. Ids below that number are images, which text models do not use.
    pub(crate) const MAX_IMAGE_TOKENS: usize = 1 << 20;
}

/// Chat templates, which are programs from files.
pub(crate) mod template {
    /// Longest template in bytes. Published ones have some ten kilobytes.
    pub(crate) const MAX_TEMPLATE: usize = 128 << 10;

    /// The fuel of a template: the base, the addition for each message, for each byte of a message and for each pair of messages, because
    /// some templates look at all messages for each of them; and the maximum. A step costs one unit, a guard is a step, and so are a value
    /// that is looked at and 64 bytes of memory.
    pub(crate) const FUEL: [u64; 5] = [50_000, 2_000, 2, 100, 20_000_000];

    /// Stack in bytes, for rendering. Calls are nested as deep as the engine allows, and values as deep as a template has assignments.
    pub(crate) const STACK: usize = 32 << 20;

    /// Stack in bytes for each byte of the source, for parsing: a chain of `elif` takes a level of recursion for each.
    pub(crate) const STACK_PER_BYTE: usize = 4 << 10;

    /// Most words and signs of a tag. The engine takes quadratic time for a chain of operators.
    pub(crate) const MAX_TAG_TOKENS: usize = 2000;

    /// Most levels of lists and objects inside each other. JSON has at most 128.
    pub(crate) const MAX_DEPTH: usize = 200;

    /// Most values inside of one that is looked at, and most pieces of a text. A piece of one byte takes 24 in a list.
    pub(crate) const MAX_VALUES: usize = 1 << 18;

    /// Longest text that is made of a value, in bytes.
    pub(crate) const MAX_TEXT: usize = 16 << 20;

    /// Most variables that one value is assigned to.
    pub(crate) const MAX_UNPACKED: usize = 64;

    /// Longest text of `format`. Each of its brackets is compared with all that is behind it.
    pub(crate) const MAX_FORMAT: usize = 4096;

    /// Longest format of a time in bytes. Templates write a date in some twenty, and a letter of the format may become ten of the text.
    pub(crate) const MAX_TIME_FORMAT: usize = 256;
}

/// What a model writes.
pub(crate) mod answer {
    /// White space that is held back, in bytes. A longer run is text.
    pub(crate) const MAX_SPACE: usize = 1024;

    /// Longest name of a tool or of an argument in bytes.
    pub(crate) const MAX_NAME: usize = 256;

    /// Longest argument in bytes that is not a text. A longer one is given as a text.
    pub(crate) const MAX_VALUE: usize = 64 << 10;

    /// Deepest nesting of lists and objects in an argument: what reads the value afterwards is recursive, and JSON has at most 128.
    pub(crate) const MAX_DEPTH: usize = 64;

    /// Longest number or word in bytes.
    pub(crate) const MAX_WORD: usize = 64;

    /// Deepest choice between schemas that is looked into.
    pub(crate) const MAX_CHOICES: usize = 8;
}

/// Grammars and JSON schemas of answers.
#[cfg(feature = "grammar")]
pub(crate) mod grammar {
    use std::time::Duration;

    /// Longest grammar or list of tools in bytes.
    pub(crate) const MAX_SOURCE: usize = 256 << 10;

    /// Deepest nesting of a schema, and of brackets in a grammar.
    pub(crate) const MAX_DEPTH: usize = 64;

    /// Longest time for one token. All answers of a pass wait for the work of each.
    pub(crate) const MAX_TOKEN_TIME: Duration = Duration::from_secs(3);

    /// Longest time for all answers to a request together, to which `MORE_TIME` is added for each of their tokens.
    pub(crate) const MAX_ANSWERS_TIME: Duration = Duration::from_secs(5);

    /// A usual grammar takes less than a millisecond for a token. This is ten times that, because the clock also counts while other
    /// threads have the core.
    pub(crate) const MORE_TIME: Duration = Duration::from_millis(10);

    /// Most states of one lexer. The engine's own limit takes 500 MB.
    pub(crate) const MAX_LEXER_STATES: usize = 50_000;

    /// Stack in bytes for the compiler, which is recursive. The system provides only the pages that are touched.
    pub(crate) const STACK: usize = 512 << 20;

    /// Longest schema in bytes.
    pub(crate) const MAX_SCHEMA: usize = 64 << 10;

    /// Most copies of parts that the compiler may make: some seconds, and some hundred megabytes.
    pub(crate) const MAX_COPIES: usize = 1 << 20;

    /// Longest name of an argument in bytes.
    pub(crate) const MAX_NAME: usize = 128;
}

/// Small files of a model, and JSON.
pub(crate) mod file {
    /// Largest file that is read; bounds memory. `tokenizer.json` of GLM-4 has 20 MB.
    pub(crate) const MAX_FILE: u64 = 64 << 20;

    /// Most bytes of the journal of a model that is quantized: the names of its tensors, some megabytes for GLM-4.5.
    pub(crate) const MAX_JOURNAL: u64 = 64 << 20;

    /// Most values of a small file of a model, such as `config.json`. Published ones have some hundreds.
    pub const MOST_IN_CONFIG: usize = 1 << 17;

    /// Most values of `tokenizer.json`. Those of GLM-4.5, with 151 000 entries and as many merges of two, have 0.6 million.
    pub(crate) const MOST_IN_TOKENIZER: usize = 1 << 21;

    /// Most values of a conversation or a request.
    pub const MOST_JSON_VALUES: usize = 1 << 20;

    /// Most characters of a value in a message.
    pub(crate) const MAX_SHOWN: usize = 80;

    /// The most links that are followed from one to the next.
    pub(crate) const MAX_LINKS: usize = 16;

    /// Most bytes of the list of mounts that are read. A line has some hundred.
    #[cfg(target_os = "linux")]
    pub(crate) const MAX_MOUNTS: u64 = 16 << 20;
}

/// Files of weights: safetensors, PyTorch, DeepSpeed.
pub(crate) mod checkpoint {
    /// Largest number of axes. No supported model has a tensor with more.
    pub(crate) const MAX_RANK: usize = 8;

    /// Enough for a hundred thousand tensors in one file.
    pub(crate) const MAX_HEADER: u64 = 16 << 20;

    /// Most tensors of a file. GLM-4.5 quantized with GPTQ has 171 000, and a header of 16 MB has room for many more without data, each of
    /// which takes some hundred bytes of memory.
    pub(crate) const MAX_TENSORS: usize = 1 << 18;

    /// Most entries of `__metadata__`. Files have one or two, ours a dozen.
    pub(crate) const MAX_METADATA: usize = 1 << 10;

    /// Most values of an index, one for each tensor. An entry takes ten bytes there, and ten times that in memory.
    pub const MOST_IN_INDEX: usize = MAX_TENSORS;

    /// Largest index. Most have tens of kilobytes; that of GLM-4.5 quantized with GPTQ has 16 MB, and longer names of files make 19.
    pub(crate) const MAX_INDEX: usize = 32 << 20;

    /// Largest number of ranks. GLM-130B has 8; one for each of its heads would be 96.
    pub(crate) const MAX_RANKS: usize = 256;

    /// Longest name of a folder in `latest`.
    pub(crate) const MAX_LATEST: u64 = 255;

    /// Largest directory that [`directory`] accepts.
    pub(crate) const MAX_DIRECTORY: usize = 16 << 20;

    /// Largest pickle. A tensor takes about 200 bytes of it, so one file can have twenty thousand.
    pub(crate) const MAX_PICKLE: usize = 4 << 20;

    /// Longest name, prefixes included.
    pub(crate) const MAX_TENSOR_NAME: usize = 512;

    /// Largest nesting depth of dictionaries. Published files have one or two, and the name of a tensor has a part for each.
    pub(crate) const MAX_DEPTH: usize = 8;
}

/// GGUF files.
pub(crate) mod gguf {
    /// Largest header. That of GLM-4-9B, whose vocabulary it holds, has 8 MB.
    pub(crate) const MAX_HEADER: usize = 32 << 20;

    /// Most keys of a file. Published ones have less than a hundred, and each takes several times its bytes when it becomes JSON.
    pub(crate) const MAX_KEYS: usize = 1 << 10;

    /// Most tensors of a model in all its parts. GLM-4.5 has less than 2000, and would have 43 000 if each expert were a tensor of its own.
    pub(crate) const MAX_TENSORS: usize = 1 << 16;

    /// Most strings or numbers in a list of the vocabulary that is read: tokens, scores, merges. Models have about 151 000.
    pub(crate) const MAX_VOCABULARY: usize = 1 << 20;

    /// Most bytes of a key, and of the name of a tensor. The specification allows 64 for names.
    pub(crate) const MAX_NAME: usize = 256;

    /// Most levels of arrays in arrays. No published file has more than one.
    pub(crate) const MAX_DEPTH: usize = 4;

    /// Longest string that is part of the configuration. Licences are longer.
    pub(crate) const MAX_TEXT: usize = 1024;

    /// Longest list that is part of the configuration. Models have fewer layers.
    pub(crate) const MAX_LIST: usize = 1024;

    /// Most parts of a model. The largest published ones have some dozens.
    pub(crate) const MAX_PARTS: u64 = 1000;

    /// Most sections of a rotation: time, height, width and one that is not used.
    pub(crate) const MAX_SECTIONS: usize = 4;
}

/// Adapters: low-rank updates and trained prefixes.
pub(crate) mod adapter {
    /// Largest rank of an update. An update of a rank above the width of its matrix is larger than the matrix; that of GLM-130B is 12 288.
    pub(crate) const MAX_RANK: usize = 1 << 16;

    /// Most bytes of a path. Each is matched with each pattern.
    pub(crate) const MAX_PATH: usize = 512;

    /// Most patterns of a file. A model of 61 layers has 366 modules, each of which may have a rank and an alpha.
    pub(crate) const MAX_PATTERNS: usize = 2048;

    /// Most bytes of a pattern. The path of a module has about 50. Parsing takes memory in proportion to them.
    pub(crate) const MAX_PATTERN: usize = 1 << 10;

    /// Most bytes of all patterns of a file.
    pub(crate) const MAX_PATTERN_TEXT: usize = 1 << 17;

    /// Most bytes of a pattern that is compiled. Those of a path have 4 kB.
    pub(crate) const MAX_REGEX: usize = 1 << 16;

    /// Most bytes of all patterns that are compiled. A match takes time and memory in proportion to them.
    pub(crate) const MAX_REGEXES: usize = 1 << 23;

    /// Most positions of a prefix, each of which takes keys and values in every layer. P-Tuning v2 uses 128, and contexts it is made for
    /// have 2048.
    pub(crate) const MAX_TOKENS: usize = 1 << 16;
}

/// Running a model.
pub(crate) mod run {
    /// Largest number of threads of a model.
    pub const MAX_THREADS: usize = 1024;

    /// Most idle workspaces that a model keeps for reuse.
    pub(crate) const IDLE_WORKSPACES: usize = 4;

    /// Most bytes of free pages that a pool keeps for reuse. Further pages are freed.
    pub(crate) const KEPT_BYTES: usize = 256 << 20;

    /// Longest draft.
    pub const MAX_DRAFT: usize = 15;

    /// Most sequences. Every search compares a prompt with all of them.
    pub(crate) const MAX_SEQUENCES: usize = 256;

    /// Most bytes of logits of one model.
    pub(crate) const LOGITS_BYTES: usize = 64 << 20;

    /// Longest first line of a file after the magic.
    pub(crate) const MAX_SAVED_HEADER: u64 = 1 << 10;

    /// Most bytes of kept prompts that are written before they must be on the disk. A thread that waits for the disk cannot be cancelled.
    pub(crate) const SYNC_BYTES: usize = 64 << 20;

    /// Rows of logits of the measurement of sensitivity that are in memory, at most; each has a number for each entry of the vocabulary,
    /// twice.
    pub(crate) const LOGIT_ROWS: usize = 32;
}

/// Sizes in a configuration. The largest supported model, GLM-130B, has 70 layers of width 12 288 with 96 heads.
pub(crate) mod config {
    /// Largest head of keys and values; 128 in most models, which is half of it.
    pub(crate) const MAX_HEAD_SIZE: usize = 256;
    /// Entries of the vocabulary; some 151 000. It is the bound of ids, and a row of logits takes four bytes for each.
    pub(crate) const MAX_VOCAB: usize = 1 << 24;
    /// Width of the network, ten times that of GLM-130B. Widths are multiplied with each other and with 4, which fits into 64 bits.
    pub(crate) const MAX_HIDDEN: usize = 1 << 17;
    /// Heads of a layer, ten times those of GLM-130B. With the largest head they are the width above, twice.
    pub(crate) const MAX_HEADS: usize = 1 << 10;
    /// Layers; 92 in GLM-4.5. A small file that claims many would make as many lists of names.
    pub(crate) const MAX_LAYERS: usize = 1 << 10;
    /// Width inside of a layer; four times the other width at most in published models, and eight times here.
    pub(crate) const MAX_INTERMEDIATE: usize = 1 << 20;
    /// Experts of a layer; 160 in GLM-4.5.
    pub(crate) const MAX_EXPERTS: usize = 1 << 10;
    /// Experts of all layers, each of which takes about a kilobyte before its file is opened; 14 240 in GLM-4.5.
    pub(crate) const MAX_ALL_EXPERTS: usize = 1 << 15;
    /// Heads of all layers with latent attention, each of which takes as much; 940 in GLM-4.7-Flash.
    pub(crate) const MAX_ALL_HEADS: usize = 1 << 15;
}
