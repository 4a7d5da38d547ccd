//! `glm pull`: downloads a model from a hub.

mod download;
mod http;
mod hub;
mod progress;
mod select;
mod stop;
