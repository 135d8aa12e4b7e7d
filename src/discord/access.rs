//! Access rules: by server, role and permission. Pure.
//!
//! Permissions count only in servers that the configuration names: everyone is an administrator somewhere, and could
//! invite the bot there. Role ids are unique across servers, so roles count everywhere.

use std::collections::BTreeSet;

use twilight_model::guild::Permissions;

use crate::config::{DiscordSettings, OperatorPermission};

/// User who gives a command, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) user: u64,
    /// The user's name on Discord.
    pub(super) name: String,
    /// `None` in direct messages.
    pub(super) guild: Option<u64>,
    pub(super) channel: u64,
    pub(super) roles: Vec<u64>,
    pub(super) permissions: Permissions,
}

/// Rank that a command requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    User,
    Operator,
}

/// Why a user may not give a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("This works in servers, not in direct messages.")]
    DirectMessage,
    #[error("This server is not one that the bot works for. Whoever runs the bot can add its id to `discord.guilds`.")]
    Guild,
    #[error("You have none of the roles that may use this. Whoever runs the bot lists them in `discord.user_roles`.")]
    NoUser,
    #[error("This is for operators. Whoever runs the bot says who they are, in `discord.operator_roles`.")]
    NoOperator,
}

/// The access rules of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Access {
    guilds: BTreeSet<u64>,
    user_roles: BTreeSet<u64>,
    operator_roles: BTreeSet<u64>,
    permission: Option<Permissions>,
}

impl Access {
    pub(super) fn new(settings: &DiscordSettings) -> Self {
        let permission = match settings.operator_permission {
            OperatorPermission::Administrator => Some(Permissions::ADMINISTRATOR),
            OperatorPermission::ManageServer => Some(Permissions::MANAGE_GUILD),
            OperatorPermission::None => None,
        };
        Self {
            guilds: ids(&settings.guilds),
            user_roles: ids(&settings.user_roles),
            operator_roles: ids(&settings.operator_roles),
            permission,
        }
    }

    /// Returns the configured servers; empty if every server is allowed.
    pub(super) fn guilds(&self) -> &BTreeSet<u64> {
        &self.guilds
    }

    /// Returns the permission to which Discord shows operators' commands; `None` if roles decide.
    pub(super) fn default_permission(&self) -> Option<Permissions> {
        // Discord does not show the command to members without the permission, even if they are operators by role.
        self.operator_roles.is_empty().then(|| self.permission.unwrap_or(Permissions::ADMINISTRATOR))
    }

    /// Returns whether `caller` may give a command that requires `rank`.
    pub(super) fn check(&self, caller: &Caller, rank: Rank) -> Result<(), Denied> {
        let guild = caller.guild.ok_or(Denied::DirectMessage)?;
        if !self.guilds.is_empty() && !self.guilds.contains(&guild) {
            return Err(Denied::Guild);
        }
        let is_operator = self.is_operator(caller, guild);
        match rank {
            Rank::Operator if is_operator => Ok(()),
            Rank::Operator => Err(Denied::NoOperator),
            Rank::User if is_operator || self.user_roles.is_empty() || has_any(caller, &self.user_roles) => Ok(()),
            Rank::User => Err(Denied::NoUser),
        }
    }

    fn is_operator(&self, caller: &Caller, guild: u64) -> bool {
        let by_permission = self.guilds.contains(&guild)
            && self.permission.is_some_and(|needed| caller.permissions.intersects(needed | Permissions::ADMINISTRATOR));
        by_permission || has_any(caller, &self.operator_roles)
    }
}

fn ids(texts: &[String]) -> BTreeSet<u64> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn has_any(caller: &Caller, roles: &BTreeSet<u64>) -> bool {
    caller.roles.iter().any(|role| roles.contains(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Permissions = Permissions::VIEW_CHANNEL;

    fn caller(guild: Option<u64>, roles: &[u64], permissions: Permissions) -> Caller {
        Caller { user: 1, name: "ann".to_owned(), guild, channel: 2, roles: roles.to_vec(), permissions }
    }

    fn access(guilds: &[&str], users: &[&str], operators: &[&str], permission: OperatorPermission) -> Access {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Access::new(&DiscordSettings {
            guilds: owned(guilds),
            user_roles: owned(users),
            operator_roles: owned(operators),
            operator_permission: permission,
            ..DiscordSettings::default()
        })
    }

    #[test]
    fn servers_roles_and_permissions_decide() {
        use OperatorPermission::{Administrator, ManageServer, None as Never};
        use Rank::{Operator, User};
        let (admin, manager) = (Permissions::ADMINISTRATOR, Permissions::MANAGE_GUILD);
        for (access, caller, rank, outcome) in [
            (access(&[], &[], &[], Administrator), caller(None, &[], admin), User, Err(Denied::DirectMessage)),
            (access(&[], &[], &[], Administrator), caller(Some(7), &[], NOBODY), User, Ok(())),
            (access(&["8"], &[], &[], Administrator), caller(Some(7), &[], admin), User, Err(Denied::Guild)),
            (access(&["7"], &["5"], &[], Administrator), caller(Some(7), &[4], NOBODY), User, Err(Denied::NoUser)),
            (access(&["7"], &["5"], &[], Administrator), caller(Some(7), &[4, 5], NOBODY), User, Ok(())),
            (access(&["7"], &["5"], &[], Administrator), caller(Some(7), &[], admin), User, Ok(())),
            (access(&["7"], &[], &[], Administrator), caller(Some(7), &[], NOBODY), Operator, Err(Denied::NoOperator)),
            (access(&["7"], &[], &[], Administrator), caller(Some(7), &[], admin), Operator, Ok(())),
            (access(&["7"], &[], &[], Administrator), caller(Some(7), &[], manager), Operator, Err(Denied::NoOperator)),
            (access(&["7"], &[], &[], ManageServer), caller(Some(7), &[], manager), Operator, Ok(())),
            (access(&["7"], &[], &[], ManageServer), caller(Some(7), &[], admin), Operator, Ok(())),
            (access(&["7"], &[], &["9"], Never), caller(Some(7), &[], admin), Operator, Err(Denied::NoOperator)),
            (access(&["7"], &[], &["9"], Never), caller(Some(7), &[9], NOBODY), Operator, Ok(())),
            // A user's own server, in which anyone can be an administrator.
            (access(&[], &[], &[], Administrator), caller(Some(7), &[], admin), Operator, Err(Denied::NoOperator)),
            (access(&[], &[], &["9"], Administrator), caller(Some(7), &[9], NOBODY), Operator, Ok(())),
        ] {
            assert_eq!(access.check(&caller, rank), outcome, "{access:?} {caller:?} {rank:?}");
        }
    }
}
