//! The Discord bot: hears of commands on the gateway, asks workers through the broker and people's questions through
//! `operations`, and replies. Owns who may do what there, how often, and what replies look like.
//!
//! Discord's types stay at the edges: `ask` reads what comes, `reply` and `conversation` write what goes. Text that people or
//! pages wrote reaches a reply only through `markup`, which takes every meaning from it. Must not drive browsers, scale, or
//! know Redis: what it wants done it publishes or orders.

mod access;
mod ask;
mod bot;
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
mod sessions;
mod token;
mod waiting;
mod web;
mod what;

pub use bot::{Bot, BotError};
pub use token::{TOKEN_VARIABLE, TokenError, read_token};
