//! The errors of the library in Chinese. Its details stay English.

use std::io::ErrorKind;

use glm_model::{Error, FileChange, readable_bytes};

use crate::messages::{Language, language};

/// The error as a Chinese sentence, if it is one that users meet.
pub fn sentence(error: &Error) -> Option<String> {
    Some(match error {
        Error::Io { path, source } => {
            let path = path.display();
            match source.kind() {
                ErrorKind::NotFound => format!("{path}：没有这个文件或文件夹"),
                ErrorKind::PermissionDenied => format!("{path}：没有访问权限"),
                _ => format!("{path}：读写出错：{source}"),
            }
        }
        Error::File { path, problem } => format!("{}：{}", path.display(), file(problem)),
        Error::Tensor { path, tensor, problem } => {
            format!("{}：张量 {tensor} 有问题：{problem}", path.display())
        }
        Error::FileChanged { path, change } => {
            let change = match change {
                FileChange::Cut => "在使用期间被截断",
                FileChange::Modified => "在使用期间被更改",
                _ => "在使用期间无法读取（磁盘或网络故障）",
            };
            format!(
                "{}：{change}，由它算出的结果是错的：请在文件完整后重新打开。使用中的文件可以改名、删除，也可以用改名的方式换成\
                 另一个文件；只有把权重读入内存时（--no-mmap）才可以就地更改",
                path.display()
            )
        }
        Error::Setting { setting, range, found } => {
            format!("{setting} 必须是{}，而这里是 {found}", range_in_chinese(range))
        }
        Error::Ids(details) => format!("token 编号有误：{details}"),
        Error::Prompt(details) => format!("{}：{details}", prompt(details)),
        Error::ContextFull { needed, capacity, max } => {
            let larger = match max > capacity {
                true => format!("，或用 --context 扩大上下文（最多 {max}）"),
                false => String::new(),
            };
            format!("需要 {needed} 个 token，而上下文只能容纳 {capacity} 个：请缩短提示{larger}")
        }
        Error::Memory { capacity, bytes } => format!(
            "无法为 {capacity} 个 token 的上下文分配 {} 内存：请选择更小的上下文",
            readable_bytes(*bytes)
        ),
        Error::OutOfMemory { what, bytes } => {
            format!("{what}：无法分配 {} 内存", readable_bytes(*bytes))
        }
        Error::Cancelled => "已取消".to_owned(),
        Error::Isa(details) => format!("指令集不可用：{details}"),
        Error::Threads(details) => format!("无法启动线程：{details}"),
        Error::NotFinite => "模型算出的 logits 不是有限数：权重已损坏，或与配置不符".to_owned(),
        _ => return None,
    })
}

/// What is wrong with a file, and the details.
fn file(problem: &str) -> String {
    let known = [
        ("is missing", "缺少此文件，或它不是普通文件"),
        ("is neither a folder nor", "既不是文件夹，也不是 GGUF 文件"),
        ("no tokenizer", "此处没有分词器"),
        (
            "model_type glm_moe_dsa",
            "不支持 GLM-5 系列：它使用稀疏注意力（DSA），由索引器为每个查询选择键",
        ),
        (
            "model_type glm5_next",
            "不支持 GLM-5.3-Flash：它使用 delta 注意力、稀疏注意力（DSA）和超连接",
        ),
        ("model_type glm_ocr", "不支持 GLM-OCR：它读取图片中的文字，而本程序不支持图片"),
        ("model_type glm_image", "不支持 GLM-Image：它生成图片，而本程序只支持文字"),
        ("model_type glmasr", "不支持 GLM-ASR：它识别语音，而本程序不支持音频"),
        ("model_type", "不支持这种模型架构"),
        (
            "is a git-lfs pointer",
            "是 git-lfs 指针，不是文件本身：请在其仓库中运行 `git lfs pull`，或用 `glm pull` 下载模型",
        ),
        ("is cut off", "文件不完整"),
        ("has more than", "其中的条目超过上限"),
        (
            "quantization_config: ",
            "不支持这种量化方式：请使用原始模型、其 GGUF 文件，或 GPTQ、AWQ、AutoRound、compressed-tensors 的 INT4",
        ),
        (
            "has its columns in an order (desc_act",
            "列的顺序（desc_act 或 actorder）要等所有文件齐全才能知道：请先下载，再运行 `glm quantize`",
        ),
        (
            "general.architecture is \"glm-dsa\"",
            "不支持 GLM-5 系列的 GGUF 文件：它使用稀疏注意力（DSA），由索引器为每个查询选择键",
        ),
        (
            "general.architecture is \"glm5",
            "不支持 GLM-5.3-Flash 的 GGUF 文件：它使用 delta 注意力、稀疏注意力（DSA）和超连接",
        ),
        ("general.architecture is", "不支持这种架构的 GGUF 文件"),
        ("is the vision part", "是模型的视觉部分（mmproj），尚不支持：请指定语言模型的 GGUF 文件"),
        ("holds several models in GGUF", "其中有多个 GGUF 模型：请指定其一"),
        (
            "is an adapter (P-Tuning v2)",
            "是适配器（P-Tuning v2），不是模型：请用 -m 打开它所属的模型，再用 --adapter 给出这个文件夹",
        ),
        (
            "is an adapter (LoRA)",
            "是适配器（LoRA），不是模型：请用 -m 打开它所属的模型，再用 --adapter 给出这个文件夹",
        ),
        (
            "is an adapter beside the model",
            "是模型旁边的适配器：请用 --adapter 给出其文件夹来合并它，或把它移走以便只量化模型",
        ),
        (
            "is an adapter, and none can be merged",
            "是适配器，模型文件尚未齐全时不能合并：请先下载模型，再运行 `glm quantize` 并加上 --adapter",
        ),
        ("is an adapter of peft", "是 peft 的适配器，但不是 LoRA，尚不支持"),
    ];
    match known.iter().find(|(start, _)| problem.starts_with(start)) {
        Some((_, chinese)) => format!("{chinese}（{problem}）"),
        None => problem.to_owned(),
    }
}

/// What is wrong with a text or a conversation.
fn prompt(details: &str) -> &'static str {
    match details {
        _ if details.contains("images are not supported") => "不支持图片，只支持文字",
        _ if details.contains("does not support") => "模型不支持这种角色的消息",
        _ if details.contains("to fill") || details.contains("blank") => "文本中的空白有误",
        _ if details.contains("cannot think") => "该模型不会思考",
        _ if details.contains("always thinks") => "该模型总是先思考，无法关闭",
        _ => "无法由输入生成提示",
    }
}

/// A range of the library in the user's language.
pub fn range(range: String) -> String {
    match language() {
        Language::English => range,
        Language::Chinese => range_in_chinese(&range),
    }
}

fn range_in_chinese(range: &str) -> String {
    let between = |range: &str| {
        let (least, most) = range.strip_prefix("from ")?.split_once(" to ")?;
        Some(match most.split_once(',') {
            Some((most, _)) => format!(" {least} 到 {most}（模型的上限）"),
            None => format!(" {least} 到 {most}"),
        })
    };
    match range {
        "a number" => "数字".to_owned(),
        "4 or 8" => " 4 或 8".to_owned(),
        "4 with a minimum" => " 4（有最小值时）".to_owned(),
        _ => {
            between(range).unwrap_or_else(|| format!(" {}", range.replace("one of", "以下之一：")))
        }
    }
}

#[cfg(test)]
mod tests {
    use glm_model::{Config, Sampling, Template, Tokenizer, messages_from_json};

    use super::*;

    #[test]
    fn frequent_errors_have_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let sentence = |error: Error| super::sentence(&error).unwrap();
        assert!(sentence(Config::open("/nowhere").unwrap_err()).contains("没有这个文件"));
        assert!(sentence(Config::open(dir.path()).unwrap_err()).contains("缺少此文件"));
        let tokenizer = Tokenizer::open(dir.path()).err().unwrap();
        assert!(sentence(tokenizer).contains("没有分词器"));
        std::fs::write(dir.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
        let unsupported = sentence(Config::open(dir.path()).unwrap_err());
        assert!(unsupported.contains("不支持这种模型架构") && unsupported.contains("llama"));
        for (model_type, expected) in [
            ("glm_moe_dsa", "不支持 GLM-5 系列"),
            ("glm5_next", "不支持 GLM-5.3-Flash"),
            ("glm_ocr", "不支持 GLM-OCR"),
            ("glm_image", "不支持 GLM-Image"),
            ("glmasr", "不支持 GLM-ASR"),
        ] {
            let config = format!(r#"{{"model_type": "{model_type}"}}"#);
            let known = Config::from_files(&[("config.json", config.as_bytes())]).unwrap_err();
            let known = sentence(known);
            assert!(known.contains(expected) && known.contains("supported: ChatGLM-6B"), "{known}");
        }
        let gguf = Config::from_files(&[(
            "config.json",
            br#"{"general.architecture": "glm-dsa"}"#.as_slice(),
        )]);
        assert!(sentence(gguf.unwrap_err()).contains("不支持 GLM-5 系列的 GGUF 文件"));
        let many = format!("[{}0]", "0,".repeat(glm_model::MOST_IN_CONFIG));
        let many = Config::from_files(&[("config.json", many.as_bytes())]).unwrap_err();
        assert!(sentence(many).contains("条目超过上限"));
        let image = r#"[{"role": "user", "content": [{"type": "image_url"}]}]"#;
        let image = sentence(messages_from_json(image).unwrap_err());
        assert!(image.starts_with("不支持图片，只支持文字"), "{image}");
        let template = sentence(Template::named("none").err().unwrap());
        assert!(template.contains("以下之一"), "{template}");
        let full = sentence(Error::ContextFull { needed: 9, capacity: 8, max: 20 });
        assert!(full.contains("最多 20"), "{full}");
        let changed = Error::FileChanged { path: "a.bin".into(), change: FileChange::Cut };
        assert!(sentence(changed).starts_with("a.bin：在使用期间被截断"));
        let role = Error::Prompt("message 0: ChatGLM-6B does not support system messages".into());
        assert!(sentence(role).contains("不支持这种角色"));
    }

    #[test]
    fn ranges_of_the_library_are_translated() {
        let range = |set: fn(&mut Sampling)| {
            let mut sampling = Sampling::greedy();
            set(&mut sampling);
            match sampling.validate() {
                Err(Error::Setting { range, .. }) => range_in_chinese(&range),
                _ => panic!("a setting out of range"),
            }
        };
        assert_eq!(range(|s| s.temperature = -1.0), " 0 到 100");
        assert_eq!(range(|s| s.top_p = -1.0), " 0 到 1");
        assert_eq!(
            range_in_chinese("from 1 to 8, for which the model was made"),
            " 1 到 8（模型的上限）"
        );
    }
}
