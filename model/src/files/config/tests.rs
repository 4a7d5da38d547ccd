//! What is read of `config.json`, and what is refused.

use super::*;

#[test]
fn an_answer_ends_as_generation_config_says_or_else_config() {
    for (generation, ends) in [
        ("{}", &[95][..]),
        (r#"{"eos_token_id": 7}"#, &[7]),
        (r#"{"eos_token_id": [95, 7, 8, 7]}"#, &[95, 7, 8]),
        (r#"{"eos_token_id": null}"#, &[95]),
        // No id of the model.
        (r#"{"eos_token_id": [100, -1, 9]}"#, &[9]),
        (r#"{"eos_token_id": [100, "x"]}"#, &[95]),
        ("\u{feff}{\"eos_token_id\": 7}", &[7]),
    ] {
        let files = [(FILE, TINY.as_bytes()), (GENERATION, generation.as_bytes())];
        assert_eq!(Config::from_files(&files).unwrap().special.ends, ends, "{generation}");
    }
    // The end of a blank is another token.
    let blanks = RELATIVES[3].replace("\"sop_token_id\"", "\"eop_token_id\": 89, \"sop_token_id\"");
    let files = [(FILE, blanks.as_bytes()), (GENERATION, br#"{"eos_token_id": 7}"#)];
    let ends = Config::from_files(&files).unwrap().special.ends;
    assert!(ends.contains(&89) && ends.contains(&7), "{ends:?}");
    let bad = [(FILE, TINY.as_bytes()), (GENERATION, br#"{"top_p": -3, "top_k": "x"}"#)];
    let config = Config::from_files(&bad).unwrap();
    assert_eq!(config.sampling, parse(TINY).unwrap().sampling);
    let settings: Vec<_> = config.unusable_defaults.iter().map(|it| it.setting).collect();
    assert_eq!(settings, ["top-p", "top-k"]);
}

pub(crate) const TINY: &str = r#"{
    "model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": 2, "hidden_size": 64,
    "num_attention_heads": 2, "inner_hidden_size": 256, "vocab_size": 100, "max_sequence_length": 2048,
    "layernorm_epsilon": 1e-5, "position_encoding_2d": true,
    "bos_token_id": 94, "eos_token_id": 95, "mask_token_id": 90, "gmask_token_id": 91
}"#;

fn parse(text: &str) -> Result<Config> {
    Config::from_files(&[(FILE, text.as_bytes())])
}

#[test]
fn chatglm_6b_is_read() {
    let config = parse(TINY).unwrap();
    assert_eq!((config.head_size, config.kv_heads, config.intermediate_size), (32, 2, 256));
    assert_eq!(config.special.gmask, Some(91));
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, expected) in [
        ("\"chatglm\"", "\"llama\"", "llama"),
        ("\"num_layers\": 2", "\"num_layers\": 0", "num_layers must be an integer from 1"),
        ("\"num_layers\": 2", "\"num_layers\": 1e99", "num_layers"),
        ("\"hidden_size\": 64", "\"hidden_size\": 60", "head size"),
        ("\"hidden_size\": 64", "\"hidden_size\": 18446744073709551615", "hidden_size"),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3", "num_attention_heads"),
        ("1e-5", "-1", "layernorm_epsilon must be a positive"),
        ("\"bos_token_id\": 94", "\"bos_token_id\": 100", "bos_token_id"),
        (
            "\"position_encoding_2d\": true",
            "\"position_encoding_2d\": false",
            "position_encoding_2d",
        ),
    ] {
        let error = parse(&TINY.replace(from, to)).unwrap_err().to_string();
        assert!(error.starts_with(FILE) && error.contains(expected), "{error}");
    }
    assert!(parse("[1]").is_err() && parse("{").is_err());
    let unknown = parse("{}").unwrap_err().to_string();
    assert!(unknown.contains("supported: ChatGLM-6B"), "{unknown}");
}

const RELATIVES: [&str; 5] = [
    r#"{"model_type": "chatglm", "_name_or_path": "THUDM/chatglm2-6b-32k", "num_layers": 2, "hidden_size": 64,
        "num_attention_heads": 4, "kv_channels": 16, "multi_query_attention": true, "multi_query_group_num": 2,
        "ffn_hidden_size": 100, "padded_vocab_size": 100, "seq_length": 32768, "layernorm_epsilon": 1e-5,
        "add_qkv_bias": true, "rope_ratio": 16, "eos_token_id": 2}"#,
    r#"{"model_type": "glm", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16,
        "num_key_value_heads": 2, "intermediate_size": 100, "vocab_size": 100, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "attention_bias": true, "eos_token_id": [5, 6]}"#,
    r#"{"model_type": "glm4", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 100, "vocab_size": 100,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 500, "partial_rotary_factor": 1.0}}"#,
    r#"{"model_type": "glm", "block_position_encoding": true, "num_layers": 2, "hidden_size": 64,
        "num_attention_heads": 4, "vocab_size": 100, "max_sequence_length": 128, "sop_token_id": 90,
        "mask_token_id": 91}"#,
    glm130b::PUBLISHED,
];

#[test]
fn the_relatives_are_read() {
    let [two, native, four, glm, large] = RELATIVES.map(|text| parse(text).unwrap());
    let rope =
        |base, rotary_dim, scaling_factor| Rope::Interleaved { base, rotary_dim, scaling_factor };
    assert_eq!((two.kv_heads, two.rope), (2, rope(1e4, 8, 16.0)));
    assert_eq!((native.qkv_bias, native.rope), (true, rope(1e4, 8, 1.0)));
    assert_eq!((&native.special.ends[..], native.output_norms), (&[5, 6][..], false));
    assert_eq!((four.output_norms, four.rope), (true, rope(500.0, 16, 1.0)));
    assert_eq!((glm.intermediate_size, glm.special.mask, glm.special.gmask), (256, Some(91), None));
    assert_eq!((large.head_size, large.residual), (128, Residual::Scaled(140f32.sqrt())));
    let three = parse(&RELATIVES[0].replace("chatglm2-6b-32k", "chatglm3-6b-32k")).unwrap();
    assert_eq!((three.architecture, three.rope), ("ChatGLM3-6B", rope(16e4, 8, 1.0)));
}

#[test]
fn fields_that_transformers_may_leave_out_have_its_defaults() {
    for model in ["glm", "glm4"] {
        let config = parse(&format!(
            r#"{{"model_type": "{model}", "architectures": ["GlmForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64,
                "num_attention_heads": 4, "intermediate_size": 100, "vocab_size": 100}}"#
        ))
        .unwrap();
        assert_eq!((config.kv_heads, config.head_size, config.max_context), (2, 128, 131_072));
        assert_eq!((config.norm, config.qkv_bias), (Norm::Rms { eps: 1.5625e-7 }, true));
    }
}

#[test]
fn a_missing_field_is_named() {
    for (relative, field) in [
        (0, "ffn_hidden_size"),
        (0, "padded_vocab_size"),
        (0, "multi_query_group_num"),
        (1, "num_hidden_layers"),
        (1, "intermediate_size"),
        (2, "vocab_size"),
    ] {
        let mut config: serde_json::Value = serde_json::from_str(RELATIVES[relative]).unwrap();
        config.as_object_mut().unwrap().remove(field);
        config["architectures"] = serde_json::json!(["GlmForCausalLM"]);
        let error = parse(&config.to_string()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{field} must be")) && error.contains("missing"),
            "{error}"
        );
    }
    let first = TINY.replace("\"inner_hidden_size\": 256,", "");
    assert!(parse(&first).unwrap_err().to_string().contains("inner_hidden_size must be"));
    assert!(parse("{}").unwrap_err().to_string().contains("model_type is missing"));
}

#[test]
fn what_the_network_is_not_built_for_is_refused() {
    for (relative, from, to, expected) in [
        (0, "\"add_qkv_bias\"", "\"rmsnorm\": false, \"add_qkv_bias\"", "rmsnorm must be true"),
        (0, "\"multi_query_group_num\": 2", "\"multi_query_group_num\": 3", "cannot share 3"),
        (0, "\"rope_ratio\": 16", "\"rope_ratio\": 0", "rope_ratio must be a positive"),
        (0, "\"eos_token_id\": 2", "\"eos_token_id\": 100", "eos_token_id must be ids below 100"),
        (1, "\"head_dim\": 16", "\"head_dim\": 17", "head size of 17"),
        (1, "\"head_dim\": 16", "\"head_dim\": 16, \"hidden_act\": \"gelu\"", "hidden_act"),
        (1, "\"head_dim\": 16", "\"head_dim\": 16, \"partial_rotary_factor\": 0.01", "rotates 0"),
        (2, "\"rope_theta\"", "\"rope_type\": \"yarn\", \"rope_theta\"", "of type \"yarn\""),
        (3, "\"sop_token_id\": 90", "\"sop_token_id\": 100", "sop_token_id must be an integer"),
        (4, "\"layernorm_order\": \"post\"", "\"layernorm_order\": \"pre\"", "layernorm_order"),
    ] {
        let text = RELATIVES[relative].replace(from, to);
        assert_ne!(text, RELATIVES[relative], "{from}");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
