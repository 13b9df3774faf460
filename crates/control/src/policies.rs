//! Policies are judged before a fence is taken: what the node could not enforce is never signed.

use ringfence_authz::{Engine, Sources};
use ringfence_model::Fence;
use ringfence_snapshot::{MAX_POLICY_BYTES, MAX_POLICY_FILES, Policies};

/// The policies of a fence, if they are there as it says and an engine can be made of them.
///
/// # Errors
/// Everything that is wrong with them, by line and column.
pub(crate) fn judged(
    fence: &Fence,
    policies: Result<Option<Policies>, String>,
) -> Result<Option<Policies>, String> {
    let policies = policies?;
    let Some(carried) = &policies else {
        return match &fence.policies {
            None => Ok(None),
            Some(declared) => {
                Err(format!("{}: the policies were not read: save the fence anew", declared.position))
            }
        };
    };
    if !carried.fits() {
        return Err(format!(
            "{}: policies and entity data are at most {MAX_POLICY_FILES} files of {} MiB together",
            carried.position,
            MAX_POLICY_BYTES >> 20
        ));
    }
    let texts = carried.files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
    let entities = carried.entities.as_ref().map(|file| (file.name.as_str(), file.text.as_str()));
    match Engine::new(fence, &Sources::of_texts(texts, entities)) {
        Ok(_) => Ok(policies),
        Err(problems) => Err(problems.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use ringfence_snapshot::Text;

    use super::*;

    const FENCE: &str = "fence: t
trust_domain: t.example
policies: [a.cedar]
services:
  a: { listen: 1 }
";

    fn judge(policy: &str) -> Result<Option<Policies>, String> {
        let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap();
        let position = fence.policies.as_ref().unwrap().position.clone();
        let file = Text { name: "a.cedar".into(), text: policy.into() };
        judged(&fence, Ok(Some(Policies { files: vec![file], entities: None, position })))
    }

    #[test]
    fn what_no_engine_can_be_made_of_is_refused_with_its_place() {
        assert!(judge("permit(principal, action, resource);").is_ok());
        let refused = judge("permit(principal,\n  action, resource in Service::\"b\");").unwrap_err();
        assert!(refused.contains("a.cedar:2:"), "{refused}");
        let large = judge(&format!("// {}", "x".repeat(MAX_POLICY_BYTES))).unwrap_err();
        assert!(large.contains("ringfence.yaml:3:1") && large.contains("at most"), "{large}");
        let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap();
        assert!(judged(&fence, Ok(None)).unwrap_err().contains("ringfence.yaml:3:1"), "never without them");
        assert_eq!(judged(&fence, Err("unreadable".into())), Err("unreadable".into()));
    }
}
