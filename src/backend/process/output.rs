//! What workers print, line by line into the log under their names. Always reads on, so printing never blocks a worker.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::{
    model::{WorkerId, WorkerType},
    telemetry::WorkerPrinted,
};

/// Longer lines are logged in pieces of this many bytes: a worker that prints no newline must not fill our memory.
const MAX_LINE: usize = 8 * 1024;

/// Logs everything that comes out of `pipe` until its end.
pub(super) async fn forward(pipe: impl AsyncRead + Unpin, worker_type: &WorkerType, worker_id: &WorkerId) {
    let mut pipe = BufReader::with_capacity(MAX_LINE, pipe);
    let mut line = Vec::new();
    let emit = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if !text.is_empty() {
            WorkerPrinted { worker_type, worker_id, line: text }.emit();
        }
        line.clear();
    };
    while let Ok(bytes) = pipe.fill_buf().await {
        if bytes.is_empty() {
            break;
        }
        let newline = bytes.iter().position(|&byte| byte == b'\n');
        let rest = newline.unwrap_or(bytes.len());
        let taken = rest.min(MAX_LINE - line.len());
        line.extend_from_slice(&bytes[..taken]);
        let ended = newline == Some(taken);
        pipe.consume(taken + usize::from(ended));
        if ended || line.len() == MAX_LINE {
            emit(&mut line);
        }
    }
    emit(&mut line);
}
