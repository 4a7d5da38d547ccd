//! GLM-130B: the `ice_text.model` of icetk, a unigram model of 130 000 pieces after 20 000 image ids.
//!
//! No added token is found in a text; `<n>` is a piece. Newlines become blanks, and characters without a piece are unknown.
//! Special ids decode to their names in brackets, and the text between them is decoded separately.

use super::added::{Found, Shown, Token};
use super::chatglm::FILE;
use super::decoder::{Decoding, Marked};
use super::sentencepiece::SentencePiece;
use super::{Build, Encoder, Family, Special, SpecialIds, Tokenizer};
use crate::error::Result;
use crate::files::checkpoint;
use crate::files::model_dir::{CONFIG, ModelDir};

/// The number of image ids before the pieces.
const IMAGE_TOKENS: u32 = 20_000;

/// The names of the special ids, which follow the pieces.
const SPECIAL: [&str; 8] = ["[MASK]", "[gMASK]", "[sMASK]", "eod", "sop", "eop", "ENC", "dBLOCK"];

/// Whether this is a folder of GLM-130B: its config says so, or there is no config but the file that names the iteration of a
/// SwissArmyTransformer checkpoint.
pub(super) fn recognises(folder: &ModelDir) -> Result<bool> {
    let config = folder.json(CONFIG)?;
    let named = config.get("model_type").is_some_and(|kind| kind == "glm-130b");
    // Trainers of other models write such a file as well, but beside a config.
    Ok(named || !folder.has(CONFIG) && checkpoint::is_sharded(|name| folder.has(name)))
}

pub(super) fn open(folder: &ModelDir) -> Result<Tokenizer> {
    let model = SentencePiece::open(folder, FILE)?;
    let first = IMAGE_TOKENS + model.len() as u32;
    let token = |(id, name): (u32, &str)| Token {
        found: Found::Never,
        shown: Shown::Apart(format!("[{name}]")),
        ..Token::new(id, name)
    };
    let mut added: Vec<_> = (first..).zip(SPECIAL).map(token).collect();
    let id =
        |name: &str| SPECIAL.iter().position(|special| *special == name).map(|i| first + i as u32);
    let eos = model.find("</s>").map(|id| id + IMAGE_TOKENS);
    added.extend(eos.map(|id| token((id, "</s>"))));
    let piece = |name: &str| model.find(name).map(|id| id + IMAGE_TOKENS);
    let ends = id("eop").into_iter().chain(eos).collect();
    let special = Special {
        ids: SpecialIds { ends, ..SpecialIds::named("sop", id) },
        pad: piece("<pad>"),
        before: Vec::new(),
        after: Vec::new(),
    };
    let decoding = Decoding { marked: Marked::Newlines, ..Decoding::default() };
    Build {
        family: Family::Glm130b,
        model: Encoder::Pieces(model),
        offset: IMAGE_TOKENS,
        added,
        special,
        decoding,
    }
    .finish()
    .map_err(|problem| folder.error(FILE, problem))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BYTE, proto};
    use super::*;
    use prost::Message;

    fn tokenizer() -> Tokenizer {
        let mut proto = proto();
        // The model of icetk lacks the pieces that were added for ChatGLM-6B.
        proto.pieces.retain(|p| {
            let text = p.piece.as_deref().unwrap_or_default();
            p.kind != Some(BYTE) && !text.contains("MASK") && !text.starts_with("<|")
        });
        if let Some(trainer) = &mut proto.trainer {
            trainer.byte_fallback = None;
        }
        let config = br#"{"model_type": "glm-130b"}"#;
        let model = proto.encode_to_vec();
        Tokenizer::from_files(&[(FILE, &model), ("config.json", config)]).expect("sound files")
    }

    #[test]
    fn special_ids_follow_the_pieces_and_are_written_in_brackets() {
        let t = tokenizer();
        let [a, unk, sop] = ["▁a", "<unk>", "sop"].map(|piece| t.id(piece).expect("a piece"));
        assert_eq!(
            t.encode("a [éé").expect("short"),
            [a, t.id("▁").unwrap(), t.id("[").unwrap(), unk]
        );
        assert!(t.encode("[MASK]").expect("short").iter().all(|&id| id < sop));
        assert_eq!(t.decode(&[a, sop, a, unk]).expect("known ids"), "a[sop]a ⁇ ");
        assert_eq!(t.special().ids.ends, [t.id("eop").unwrap(), IMAGE_TOKENS + 2]);
        assert_eq!(t.vocab_size() as u32, t.id("dBLOCK").unwrap() + 1);
    }

    #[test]
    fn the_iteration_of_a_checkpoint_says_so_too() {
        let folder = [("latest", &b"49300"[..])];
        assert!(recognises(&ModelDir::of(&folder)).expect("sound files"));
        assert!(!recognises(&ModelDir::of(&[])).expect("no files"));
    }
}
