//! stub
use crate::error::Result;
use crate::model::*;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::*;
use std::sync::atomic::AtomicBool;
pub struct Request<'a> {
    pub project: &'a Project,
    pub environment: &'a Environment,
    pub params: BTreeMap<String, String>,
    pub artifacts: &'a dyn Fn(&str) -> Option<Artifact>,
    pub version: Option<String>,
    pub root: &'a Path,
    pub recipes: &'a recipe::Recipes,
    pub who: String,
    pub run_id: String,
    pub now: u64,
    pub control_dir: PathBuf,
    pub ssh: OsString,
    pub force: bool,
}
#[derive(serde::Serialize)]
pub struct Plan;
impl Plan {
    pub fn shown(&self, _: bool) -> String {
        String::new()
    }
}
#[derive(serde::Serialize)]
pub struct Outcome {
    pub urls: Vec<String>,
}
impl Outcome {
    pub fn summary(&self) -> String {
        String::new()
    }
}
pub fn plan(_: &Request, _: &dyn Progress, _: &AtomicBool) -> Result<Plan> {
    Ok(Plan)
}
pub fn apply(_: &Request, _: &dyn Progress, _: &AtomicBool) -> Result<Outcome> {
    Ok(Outcome { urls: vec![] })
}
pub fn rollback(_: &Request, _: &dyn Progress, _: &AtomicBool) -> Result<Outcome> {
    Ok(Outcome { urls: vec![] })
}
pub mod recipe {
    use super::*;
    pub struct Recipes;
    impl Recipes {
        pub fn load(_: Option<&Path>) -> Result<(Recipes, crate::source::Sources)> {
            Ok((Recipes, Default::default()))
        }
    }
    pub fn check_uses(_: &Project, _: &Recipes) -> Vec<crate::source::Mistake> {
        vec![]
    }
}
