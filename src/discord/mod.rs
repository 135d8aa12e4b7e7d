//! The Discord bot: receives commands from the gateway, asks workers through the broker, answers the questions of
//! people through `operations`, and replies. Owns the access rules, the rate limits and the form of replies.
//!
//! Discord's types stay at the edges: `ask` parses what arrives, `reply` and `conversation` produce what is sent. Text
//! from people or pages reaches a reply only through `markup`, which neutralizes it. Must not drive browsers, scale, or
//! access Redis itself: it publishes jobs and sets overrides.

mod access;
mod ask;
mod bot;
mod cancelling;
mod commands;
mod context;
mod conversation;
mod dispatcher;
mod gateway;
mod limits;
mod markup;
mod operate;
mod pace;
mod reply;
mod session_limits;
mod sessions;
mod token;
mod waited_jobs;
mod waiting;
mod web;
mod what;

pub use bot::{Bot, BotError};
pub use token::{TOKEN_VARIABLE, TokenError, read_token};
