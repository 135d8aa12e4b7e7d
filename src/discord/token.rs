//! The bot's token: from a file or the environment, never shown.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};

/// Variable with the token, unless a file is named.
pub const TOKEN_VARIABLE: &str = "DISCORD_TOKEN";
/// Far above any token: a wrong path, such as a device, must not fill the memory.
const LONGEST: u64 = 4_096;

/// Why there is no token. Never quotes the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Neither a variable nor a file gives a token.
    #[error(
        "there is no token for discord; set DISCORD_TOKEN, or `discord.token_file` to a file that holds it \
         (docs/discord.md says where Discord shows it)"
    )]
    Missing,
    /// The file can't be read.
    #[error("discord.token_file: {path} can't be read ({cause}); create it, readable for this user")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
    },
    /// The token contains characters that no token has.
    #[error("discord's token holds blanks or characters that no token has; copy it again (it is not shown here)")]
    Odd,
}

/// Reads the token from `file` if one is named, else from `variable`.
///
/// # Errors
/// If there is no token, or the text can't be one.
pub fn read_token(file: Option<&Path>, variable: Option<String>) -> Result<SecretString, TokenError> {
    let text = match file {
        Some(path) => read(path).map_err(|cause| TokenError::File { path: path.to_owned(), cause })?,
        None => SecretString::from(variable.unwrap_or_default()),
    };
    let token = text.expose_secret().trim();
    let token = token.strip_prefix("Bot ").unwrap_or(token);
    if token.is_empty() {
        return Err(TokenError::Missing);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Odd);
    }
    Ok(SecretString::from(token))
}

fn read(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(variable: &str) -> Result<String, String> {
        let read = read_token(None, Some(variable.to_owned()));
        read.map(|token| token.expose_secret().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_is_trimmed_and_an_odd_one_is_not_quoted() {
        assert_eq!(token(" abc.DEF-1_2 \n").as_deref(), Ok("abc.DEF-1_2"));
        assert_eq!(token("Bot abc").as_deref(), Ok("abc"));
        assert!(token("").unwrap_err().contains("set DISCORD_TOKEN"));
        for odd in ["hunter2 hunter3", "hunter2\u{1}", "huntér2"] {
            let error = token(odd).unwrap_err();
            assert!(error.contains("copy it again") && !error.contains("hunt"), "{error}");
        }
    }

    #[test]
    fn a_file_wins_and_is_named_when_it_can_not_be_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from-file\n").unwrap();
        let read = read_token(Some(file.path()), Some("from-variable".to_owned())).unwrap();
        assert_eq!(read.expose_secret(), "from-file");
        let error = read_token(Some(Path::new("/nowhere/token")), Some("hunter2".to_owned())).unwrap_err().to_string();
        assert!(error.contains("/nowhere/token") && !error.contains("hunter2"), "{error}");
    }
}
