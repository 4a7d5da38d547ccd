//! `glm pull`: downloads a model from a hub.

mod download;
mod hash;
mod http;
mod hub;
mod progress;
mod quantize;
mod retry;
mod select;
mod stop;
mod space {
    pub fn check(_: &std::path::Path, _: u64) -> anyhow::Result<()> {
        Ok(())
    }
}
