//! Which host of the fence this is.

use ringfence_control::member;
use ringfence_join::JoinToken;
use ringfence_model::Fence;

use super::Options;
use crate::data::DataDir;

/// The name of this host; none where the fence names no hosts.
///
/// # Errors
/// It cannot be told, or the fence does not know it: what to do next.
pub(super) fn of(options: &Options, fence: &Fence, data: &DataDir) -> Result<Option<String>, String> {
    let joined =
        member::of(data.root()).map_err(|e| format!("{}: {e}", member::folder(data.root()).display()))?;
    let Some(joining) = &options.member else {
        if let Some((name, _)) = joined {
            return Err(format!(
                "this data directory is of host `{name}`, which joined: run `ringfence node`, or name another with --data DIR"
            ));
        }
        return Ok(fence.control_host().map(|host| host.name.clone()));
    };
    let token = joining.token.as_ref().map(|text| JoinToken::parse(text.expose().trim()));
    let token = token.transpose().map_err(|e| e.to_string())?;
    let name = match (joined, token) {
        (Some((name, _)), _) => name,
        (None, Some(token)) => {
            if token.trust_domain().as_str() != fence.trust_domain {
                return Err(format!(
                    "the join token is for trust domain {}, and this fence is of {}",
                    token.trust_domain().as_str(),
                    fence.trust_domain
                ));
            }
            token.host().to_owned()
        }
        (None, None) => {
            return Err("this host has not joined: on the control host make a token with `ringfence host token NAME`, and give it here with --join FILE".into());
        }
    };
    match fence.host(&name) {
        Some(host) if host.control.is_some() => {
            Err(format!("host `{name}` has control: run `ringfence up` there"))
        }
        Some(_) => Ok(Some(name)),
        None => {
            Err(format!("this is host `{name}`, and this copy of the fence has no such host under `hosts`"))
        }
    }
}
