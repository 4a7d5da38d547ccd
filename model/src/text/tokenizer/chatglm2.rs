//! ChatGLM2 and ChatGLM3: `tokenizer.model`, a SentencePiece BPE model that does not collapse blanks.
//!
//! Special ids follow the pieces. Their names in a text stay text, except for the roles of ChatGLM3, which are found on
//! request. The special ids of ChatGLM2 decode to nothing, those of ChatGLM3 to their names.

use super::added::{Found, Shown, Token};
use super::decoder::Decoding;
use super::sentencepiece::SentencePiece;
use super::settings;
use super::{Build, Encoder, Family, Special, SpecialIds, Tokenizer};
use crate::error::Result;
use crate::files::model_dir::ModelDir;
pub(super) use crate::files::model_dir::TOKENIZER_MODEL as FILE;
use crate::files::variant::{Identity, Variant};

const SPECIAL: [&str; 5] = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"];
const ROLES: [&str; 4] = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"];

/// The special tokens of ChatGLM3 in the order of their ids, which follow those of the pieces.
pub(super) fn special_names() -> impl Iterator<Item = &'static str> {
    SPECIAL.into_iter().chain(ROLES)
}

pub(super) fn open(folder: &ModelDir) -> Result<Tokenizer> {
    settings::open(folder)?;
    let model = SentencePiece::open(folder, FILE)?;
    let third = Identity::of(folder)?.variant != Some(Variant::ChatGlm2);
    let family = if third { Family::ChatGlm3 } else { Family::ChatGlm2 };
    let first = model.len() as u32;
    let shown = |name: &str| if third { Shown::Within(name.into()) } else { Shown::Hidden };
    let token = |(id, name): (u32, &&str)| {
        let found = if ROLES.contains(name) { Found::OnRequest } else { Found::Never };
        Token { found, shown: shown(name), ..Token::new(id, name) }
    };
    let roles = if third { &ROLES[..] } else { &[] };
    let mut added: Vec<_> = (first..).zip(SPECIAL.iter().chain(roles)).map(token).collect();
    let id = |name: &str| added.iter().find(|token| token.name == name).map(|token| token.id);
    let ends = model.find("</s>").into_iter().collect();
    let special = Special {
        ids: SpecialIds { ends, ..SpecialIds::named("sop", id) },
        pad: model.find("<unk>"),
        before: [id("[gMASK]"), id("sop")].into_iter().flatten().collect(),
        after: Vec::new(),
    };
    added.extend(["<unk>", "<s>", "</s>"].iter().filter_map(|name| {
        let hidden = Token {
            found: Found::Never,
            shown: Shown::Hidden,
            ..Token::new(model.find(name)?, name)
        };
        Some(hidden)
    }));
    let decoding = Decoding { keeps_blanks: !model.collapses(), ..Decoding::default() };
    Build { family, model: Encoder::Pieces(model), offset: 0, added, special, decoding }
        .finish()
        .map_err(|problem| folder.error(FILE, problem))
}

#[cfg(test)]
mod tests {
    use super::super::testing::bpe_proto;
    use super::*;
    use prost::Message;

    const WORDS: [&str; 9] = ["▁", "h", "e", "l", "he", "ll", "▁▁", "hell", "▁he"];

    fn tokenizer(name: &str) -> Tokenizer {
        let config = format!("{{\"_name_or_path\": \"{name}\"}}");
        let model = bpe_proto(&WORDS).encode_to_vec();
        Tokenizer::from_files(&[(FILE, &model), ("config.json", config.as_bytes())])
            .expect("sound files")
    }

    fn ids(tokenizer: &Tokenizer, pieces: &[&str]) -> Vec<u32> {
        pieces.iter().map(|piece| tokenizer.id(piece).expect("a piece")).collect()
    }

    #[test]
    fn neighbours_are_joined_the_best_first_and_blanks_stay() {
        let t = tokenizer("");
        for (text, pieces) in [
            ("", &[][..]),
            // "he" and "hell" have a higher score than "▁he".
            ("hell", &["▁", "hell"]),
            ("  he", &["▁▁", "▁he"]),
            (
                "é<|user|>",
                &[
                    "▁", "<0xC3>", "<0xA9>", "<0x3C>", "<0x7C>", "<0x75>", "<0x73>", "e", "<0x72>",
                    "<0x7C>", "<0x3E>",
                ],
            ),
        ] {
            let found = t.encode(text).expect("short");
            assert_eq!(found, ids(&t, pieces), "{text:?}");
            assert_eq!(t.decode(&found).expect("its own ids"), text);
        }
        let found = t.encode_with_roles("he<|user|>he").expect("short");
        assert_eq!(found, ids(&t, &["▁he", "<|user|>", "▁he"]));
    }

    #[test]
    fn a_name_tells_the_second_from_the_third() {
        for (name, family) in [
            ("THUDM/chatglm2-6b", Family::ChatGlm2),
            ("codegeex2-6b", Family::ChatGlm2),
            ("chatglm3-6b-32k", Family::ChatGlm3),
            ("mine", Family::ChatGlm3),
        ] {
            assert_eq!(tokenizer(name).family(), family, "{name}");
        }
        let text = |name| {
            let t = tokenizer(name);
            t.decode(&ids(&t, &["[gMASK]", "sop", "▁he", "</s>"])).expect("known ids")
        };
        assert_eq!((text("chatglm2").as_str(), text("chatglm3").as_str()), ("he", "[gMASK]sop he"));
        assert_eq!(tokenizer("chatglm2").id("<|user|>"), None);
    }
}
