//! SentencePiece models: the file format, and the two segmentation algorithms.
//!
//! A BPE model (ChatGLM2, ChatGLM3, GLM-10B-Chinese) starts with single characters and joins neighbours. The pair that makes
//! the piece with the highest score is joined first; see [`super::bpe`].
//!
//! A unigram model (ChatGLM-6B, GLM-130B) chooses the segmentation with the highest sum of scores by the Viterbi algorithm:
//!
//! ```text
//! for position in text, left to right
//!     for piece that the text has at position
//!         best[position + length] = max(best[position + length], best[position] + score)
//! ```
//!
//! Segmentations often have the same pieces in another order ("a aa" and "aa a"), and then rounding decides. To decide as
//! SentencePiece does since version 0.2.2, sums are `f32` and the first of equal sums is kept. Older versions compared sums in
//! `f64`, which gives a different result for a few of a thousand repetitive texts.

use super::bpe::{self, Joined, Symbol};
use super::normalizer::{BLANK, Normalizer};
use super::trie::Trie;
use crate::error::{Error, Result};
use crate::files::model_dir::ModelDir;
use crate::limits::tokenizer::{
    MAX_GROWTH, MAX_NORMALIZED, MAX_PIECE, MAX_SENTENCEPIECE, MAX_TOKENS,
};
use crate::memory::{room, zeros};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use std::cmp::Ordering;

/// The score of an unknown character is the lowest score of a piece minus this.
const UNKNOWN_PENALTY: f32 = 10.0;

/// What needs memory for a text.
const PARTS: &str = "the parts of the text";

/// The file: the fields of SentencePiece's `sentencepiece_model.proto` that are used here.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    pub(super) trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    pub(super) normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PieceProto {
    #[prost(string, optional, tag = "1")]
    pub(super) piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(super) score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    pub(super) kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    pub(super) model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    pub(super) treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    pub(super) byte_fallback: Option<bool>,
    #[prost(string, optional, tag = "44")]
    pub(super) unk_surface: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    pub(super) add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(super) remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub(super) escape_whitespaces: Option<bool>,
}

/// The kind of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// Not found in a text, and decoded to nothing.
    Control,
    /// Always found in a text.
    UserDefined,
    Unused,
    /// One byte of a character without a piece.
    Byte(u8),
}

pub(super) struct Piece {
    pub(super) text: String,
    pub(super) kind: Kind,
    score: f32,
}

/// The segmentation algorithm.
enum Algorithm {
    Unigram {
        unknown_score: f32,
        best_score: f32,
    },
    /// For each piece, the number of distinct scores that are higher than its own.
    Bpe {
        ranks: Vec<u32>,
    },
}

/// A model and its normalizer.
pub(super) struct SentencePiece {
    pieces: Vec<Piece>,
    normalizer: Normalizer,
    trie: Trie,
    algorithm: Algorithm,
    unknown: u32,
    unknown_surface: String,
    collapse: bool,
    bytes: Option<Box<[u32; 256]>>,
}

impl SentencePiece {
    /// Reads a model file in a folder.
    ///
    /// # Errors
    /// If the file is not valid, or has settings that are not supported.
    pub(super) fn open(folder: &ModelDir, name: &str) -> Result<Self> {
        let file = folder.read(name)?;
        Self::parse(&file).map_err(|problem| folder.error(name, problem))
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// If the file is not valid, or has settings that are not supported.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        if file.len() > MAX_SENTENCEPIECE {
            return Err(format!("{} bytes are too many for a SentencePiece model", file.len()));
        }
        check_count(file)?;
        let proto = ModelProto::decode(file).map_err(not_a_model)?;
        // The settings are at the end, and a file that is cut between two pieces is still valid protobuf.
        let (Some(trainer), Some(spec)) = (proto.trainer, proto.normalizer) else {
            return Err(
                "the settings of the SentencePiece model are missing: the file may be cut short"
                    .into(),
            );
        };
        check_settings(&trainer, &spec)?;
        let collapse = spec.remove_extra_whitespaces.unwrap_or(true);
        let pieces =
            proto.pieces.into_iter().zip(0..).map(read_piece).collect::<Result<Vec<_>, _>>()?;
        let unknown = only_unknown(&pieces)?;
        let bytes = byte_table(&pieces, trainer.byte_fallback())?;
        let sorted = sort(&pieces)?;
        let of_kind = |kinds: &[Kind]| -> Vec<_> {
            sorted
                .iter()
                .filter(|(_, id)| kinds.contains(&pieces[*id as usize].kind))
                .copied()
                .collect()
        };
        let map = spec.precompiled_charsmap.unwrap_or_default();
        let normalizer = Normalizer::new(&map, &of_kind(&[Kind::UserDefined]), collapse)?;
        let trie = Trie::new(&of_kind(&[Kind::Normal, Kind::UserDefined]))?;
        let algorithm =
            if trainer.model_type == Some(BPE) { bpe(&pieces)? } else { unigram(&pieces) };
        Ok(SentencePiece {
            normalizer,
            trie,
            algorithm,
            unknown,
            unknown_surface: trainer.unk_surface.unwrap_or_else(|| " ⁇ ".into()),
            collapse,
            bytes,
            pieces,
        })
    }

    /// Whether the model collapses runs of blanks.
    pub(super) fn collapses(&self) -> bool {
        self.collapse
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn piece(&self, id: usize) -> Option<&Piece> {
        self.pieces.get(id)
    }

    /// The piece with this text, by linear search.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.pieces.iter().position(|p| p.text == text).map(|id| id as u32)
    }

    /// The text to which the unknown piece decodes.
    pub(super) fn unknown_surface(&self) -> &str {
        &self.unknown_surface
    }

    /// Appends the ids of `text`.
    ///
    /// # Errors
    /// If the normalized text is too long, or there is no memory for its parts.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let most = MAX_NORMALIZED.min(text.len().saturating_mul(MAX_GROWTH) + 64);
        let text = self.normalizer.normalize(text, most);
        let text = text.ok_or_else(|| Error::Prompt("the normalized text is too long".into()))?;
        let parts = match &self.algorithm {
            Algorithm::Unigram { unknown_score, best_score } => {
                self.best_segmentation(&text, *unknown_score, *best_score)?
            }
            Algorithm::Bpe { ranks } => self.merged(&text, ranks)?,
        };
        let mut after_unknown = false;
        for Symbol { start, end, id } in parts {
            let is_unknown = id == self.unknown;
            match &self.bytes {
                Some(table) if is_unknown => {
                    ids.extend(text[start..end].bytes().map(|b| table[usize::from(b)]))
                }
                // Without pieces for bytes, a run of unknown characters is one unknown piece.
                None if is_unknown && after_unknown => {}
                _ => ids.push(id),
            }
            after_unknown = is_unknown;
        }
        Ok(())
    }

    /// Joins characters to pieces. User-defined pieces are found first and are not joined.
    fn merged(&self, text: &str, ranks: &[u32]) -> Result<Vec<Symbol>> {
        let id = |start, end| self.trie.get(&text.as_bytes()[start..end]);
        // Most characters take several bytes, or are joined.
        let mut parts = room(text.len() / 2, PARTS)?;
        let mut start = 0;
        while let Some(first) = text[start..].chars().next() {
            let length = self.normalizer.verbatim(&text[start..]).unwrap_or(first.len_utf8());
            let end = start + length;
            parts.push(Symbol { start, end, id: id(start, end).unwrap_or(self.unknown) });
            start = end;
        }
        let stays = |part: Symbol| self.pieces[part.id as usize].kind == Kind::UserDefined;
        Ok(bpe::merge(parts, |left, right| {
            if stays(left) || stays(right) {
                return None;
            }
            let id = id(left.start, right.end)?;
            Some(Joined { rank: ranks[id as usize], id })
        }))
    }

    fn best_segmentation(
        &self,
        text: &str,
        unknown_score: f32,
        best_score: f32,
    ) -> Result<Vec<Symbol>> {
        let mut best = room(text.len() + 1, PARTS)?;
        best.resize(text.len() + 1, Best::default());
        for (place, c) in text.char_indices() {
            let here = best[place].score;
            let mut has_single = false;
            for (length, id) in self.trie.prefixes(&text.as_bytes()[place..]) {
                has_single |= length == c.len_utf8();
                let score = self.score(id, length, best_score);
                best[place + length].offer(here + score, place, id);
            }
            if !has_single {
                best[place + c.len_utf8()].offer(here + unknown_score, place, self.unknown);
            }
        }
        let mut parts = Vec::new();
        let mut end = text.len();
        while let Some(start) = best[end].start {
            parts.push(Symbol { start, end, id: best[end].id });
            end = start;
        }
        parts.reverse();
        Ok(parts)
    }

    /// The score of a piece. That of a user-defined piece is so high that it is always chosen.
    fn score(&self, id: u32, length: usize, best_score: f32) -> f32 {
        let piece = &self.pieces[id as usize];
        match piece.kind {
            Kind::UserDefined => length as f32 * best_score - 0.1,
            _ => piece.score,
        }
    }
}

/// The best segmentation up to a position so far: its score and its last piece.
#[derive(Clone, Default)]
struct Best {
    start: Option<usize>,
    id: u32,
    score: f32,
}

impl Best {
    fn offer(&mut self, score: f32, start: usize, id: u32) {
        if self.start.is_none() || score > self.score {
            *self = Best { start: Some(start), id, score };
        }
    }
}

/// `TrainerSpec.ModelType`.
const UNIGRAM: i32 = 1;
const BPE: i32 = 2;

fn unigram(pieces: &[Piece]) -> Algorithm {
    let scores = || pieces.iter().filter(|p| p.kind == Kind::Normal).map(|p| p.score);
    Algorithm::Unigram {
        unknown_score: scores().reduce(f32::min).unwrap_or(0.0) - UNKNOWN_PENALTY,
        // SentencePiece starts from the smallest positive number. Scores are negative as a rule.
        best_score: scores().fold(f32::MIN_POSITIVE, f32::max),
    }
}

/// Checks how many pieces a file has before they are read: one without a text takes two bytes there, and forty in memory.
fn check_count(mut file: &[u8]) -> Result<(), String> {
    let mut count = 0;
    while !file.is_empty() {
        let (tag, kind) = decode_key(&mut file).map_err(not_a_model)?;
        skip_field(kind, tag, &mut file, DecodeContext::default()).map_err(not_a_model)?;
        count += usize::from(tag == 1);
    }
    match count {
        0..=MAX_TOKENS => Ok(()),
        _ => Err(format!("has more than {MAX_TOKENS} pieces")),
    }
}

fn not_a_model(error: prost::DecodeError) -> String {
    format!("not a SentencePiece model: {error}")
}

fn bpe(pieces: &[Piece]) -> Result<Algorithm, String> {
    if let Some(id) = pieces.iter().position(|piece| piece.kind == Kind::Unused) {
        return Err(format!("piece {id} is unused, which is not supported in a BPE model"));
    }
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    // Scores are finite, so they are ordered.
    order
        .sort_by(|&a, &b| pieces[b].score.partial_cmp(&pieces[a].score).unwrap_or(Ordering::Equal));
    let mut ranks = zeros(pieces.len(), "the ranks of pieces").map_err(|e| e.to_string())?;
    let mut rank = 0;
    for pair in order.windows(2) {
        rank += u32::from(pieces[pair[0]].score != pieces[pair[1]].score);
        ranks[pair[1]] = rank;
    }
    Ok(Algorithm::Bpe { ranks })
}

/// Rejects settings that no model of the family has. Ignoring them would give wrong ids.
fn check_settings(trainer: &TrainerSpec, spec: &NormalizerSpec) -> Result<(), String> {
    let kind = trainer.model_type.unwrap_or(UNIGRAM);
    if ![UNIGRAM, BPE].contains(&kind) {
        return Err(format!(
            "the model type {kind} is not supported, only unigram (1) and BPE (2)"
        ));
    }
    let is_usual = !trainer.treat_whitespace_as_suffix()
        && spec.add_dummy_prefix.unwrap_or(true)
        && spec.escape_whitespaces.unwrap_or(true);
    is_usual.then_some(()).ok_or_else(|| "the settings for blanks are not supported".into())
}

fn read_piece((proto, id): (PieceProto, u32)) -> Result<Piece, String> {
    let text = proto.piece.unwrap_or_default();
    if text.is_empty() || text.len() > MAX_PIECE {
        return Err(format!("piece {id} has {} bytes", text.len()));
    }
    let score = proto.score.unwrap_or(0.0);
    if !score.is_finite() {
        return Err(format!("piece {id} has the score {score}"));
    }
    let kind = match proto.kind.unwrap_or(1) {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte(
            read_byte(&text).ok_or_else(|| format!("piece {id}, {text:?}, is not a byte"))?,
        ),
        other => return Err(format!("piece {id} has the kind {other}, which does not exist")),
    };
    Ok(Piece { text, kind, score })
}

/// The byte of a piece such as `<0x0A>`.
fn read_byte(piece: &str) -> Option<u8> {
    let byte = u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()?;
    (format!("<0x{byte:02X}>") == piece).then_some(byte)
}

fn only_unknown(pieces: &[Piece]) -> Result<u32, String> {
    let mut unknown = pieces.iter().zip(0..).filter(|(p, _)| p.kind == Kind::Unknown);
    match (unknown.next(), unknown.next()) {
        (Some((_, id)), None) => Ok(id),
        (None, _) => Err("there is no unknown piece".into()),
        _ => Err("there are several unknown pieces".into()),
    }
}

/// The ids of all bytes, for a model with byte fallback.
fn byte_table(pieces: &[Piece], byte_fallback: bool) -> Result<Option<Box<[u32; 256]>>, String> {
    let mut table = [None; 256];
    for (piece, id) in pieces.iter().zip(0..) {
        if let Kind::Byte(byte) = piece.kind {
            table[usize::from(byte)] = Some(id);
        }
    }
    match (byte_fallback, table.iter().flatten().count()) {
        (false, 0) => Ok(None),
        (false, _) => Err("pieces for bytes without byte fallback".into()),
        (true, 256) => Ok(Some(Box::new(table.map(Option::unwrap_or_default)))),
        (true, n) => Err(format!("byte fallback with pieces for {n} of 256 bytes")),
    }
}

/// All pieces sorted by their bytes.
fn sort(pieces: &[Piece]) -> Result<Vec<(&str, u32)>, String> {
    // Comparing the first eight bytes as a number is faster and decides most comparisons.
    let head = |text: &str| {
        let mut head = [0; 8];
        head.iter_mut().zip(text.bytes()).for_each(|(h, b)| *h = b);
        u64::from_be_bytes(head)
    };
    let mut sorted: Vec<_> =
        pieces.iter().zip(0..).map(|(p, id)| (head(&p.text), p.text.as_str(), id)).collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        return Err(format!(
            "the pieces {} and {} are both {:?}",
            twice[0].2, twice[1].2, twice[0].1
        ));
    }
    Ok(sorted.into_iter().map(|(_, text, id)| (text, id)).collect())
}

/// The text of a piece, with blanks for `▁`. At the start of a text, the first blank is dropped.
pub(super) fn surface(piece: &str, at_start: bool) -> String {
    let piece = if at_start { piece.strip_prefix(BLANK).unwrap_or(piece) } else { piece };
    piece.replace(BLANK, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_counted_before_they_are_read() {
        // A piece without a text.
        let file = b"\x0a\0".repeat(MAX_TOKENS + 1);
        let problem = |file| SentencePiece::parse(file).err().expect("no model");
        assert_eq!(problem(&file), "has more than 1048576 pieces");
        assert!(problem(&file[2..]).contains("settings"), "as many as there may be");
        assert!(problem(&file[..3]).starts_with("not a SentencePiece model"));
    }
}
