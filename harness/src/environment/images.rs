//! Chooses the images of the docker engine.
//!
//! In this order: the name given; the official image if it is local; the image of
//! `ci/images/build` if it is local; the official image, pulled. Never silently another version.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt as _;
use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::CreateImageOptions;

/// A pull that has not ended after this is given up: some networks swallow the attempt.
const PULL_LIMIT: Duration = Duration::from_secs(300);
/// Time in which the registry must have said anything at all.
const FIRST_WORD_LIMIT: Duration = Duration::from_secs(15);

/// What an image is for: its names and the variable that overrides them.
#[derive(Debug, Clone, Copy)]
pub struct ImageNames {
    /// Environment variable that names another image.
    pub variable: &'static str,
    /// The official image.
    pub official: &'static str,
    /// What `ci/images/build` makes.
    pub built: &'static str,
}

/// PostgreSQL.
pub const POSTGRES: ImageNames =
    ImageNames { variable: "NOGO_IMAGE_POSTGRES", official: "postgres:15", built: "nogo/postgres:15" };

/// Redis.
pub const REDIS: ImageNames = ImageNames { variable: "NOGO_IMAGE_REDIS", official: "redis:7", built: "nogo/redis:7" };

/// An image that the engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenImage {
    /// Repository, without the tag.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The image's id, or its repository digest where it has one; `sha256:…` in both cases.
    pub digest: String,
}

/// Chooses and, if needed and `may_pull`, pulls the image. `override_name` precedes the
/// environment variable.
///
/// # Errors
/// If none is there and none can be had; the message names the fix.
pub async fn choose(
    docker: &Docker,
    names: ImageNames,
    override_name: Option<&str>,
    may_pull: bool,
) -> Result<ChosenImage> {
    let named =
        override_name.map(str::to_owned).or_else(|| std::env::var(names.variable).ok().filter(|name| !name.is_empty()));
    if let Some(name) = named {
        if let Some(image) = local(docker, &name).await {
            return Ok(image);
        }
        if !may_pull {
            bail!("image {name} ({}) is not local", names.variable);
        }
        pull(docker, &name).await.with_context(|| format!("pull image {name}"))?;
        return local(docker, &name).await.with_context(|| format!("find the pulled image {name}"));
    }
    for name in [names.official, names.built] {
        if let Some(image) = local(docker, name).await {
            return Ok(image);
        }
    }
    let fix =
        format!("run ci/setup --engine docker, which builds {}, or name an image with {}", names.built, names.variable);
    if !may_pull {
        bail!("neither {} nor {} is local: {fix}", names.official, names.built);
    }
    if let Err(error) = pull(docker, names.official).await {
        bail!("neither {} nor {} is local and the pull failed ({error:#}): {fix}", names.official, names.built);
    }
    local(docker, names.official).await.with_context(|| format!("find the pulled image {}", names.official))
}

async fn local(docker: &Docker, name: &str) -> Option<ChosenImage> {
    let (repository, tag) = split(name);
    let found = docker.inspect_image(&format!("{repository}:{tag}")).await.ok()?;
    let published = found.repo_digests.unwrap_or_default().into_iter().next();
    let digest = published.and_then(|digest| Some(digest.split_once('@')?.1.to_owned()));
    Some(ChosenImage { repository, tag, digest: digest.or(found.id).unwrap_or_default() })
}

async fn pull(docker: &Docker, name: &str) -> Result<()> {
    let (repository, tag) = split(name);
    let options = CreateImageOptions { from_image: Some(repository), tag: Some(tag), ..Default::default() };
    let mut answers = Box::pin(docker.create_image(Some(options), None, None));
    let whole = async {
        let mut limit = FIRST_WORD_LIMIT;
        while let Some(answer) =
            tokio::time::timeout(limit, answers.next()).await.context("the registry does not answer")?
        {
            answer?;
            limit = PULL_LIMIT;
        }
        Ok(())
    };
    tokio::time::timeout(PULL_LIMIT, whole).await.context("the pull takes too long")?
}

/// Repository and tag; `latest` if none is given. A registry's port is no tag.
fn split(name: &str) -> (String, String) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name.to_owned(), "latest".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_at_its_tag_and_not_at_a_port() {
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        assert_eq!(split("postgres:15"), pair("postgres", "15"));
        assert_eq!(split("host:5000/redis"), pair("host:5000/redis", "latest"));
        assert_eq!(split("host:5000/redis:7"), pair("host:5000/redis", "7"));
    }
}
