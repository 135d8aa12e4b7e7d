//! The Discord bot: the real binary and the real library against a fake of Discord.

mod bench;
mod cancelling;
mod commands;
mod connection;
mod operating;
mod session_limits;
mod waiting;
mod whole;
