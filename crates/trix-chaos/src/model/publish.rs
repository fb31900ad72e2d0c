//! Publication under the fence: migrations 0006 and 0040.

use serde_json::json;
use trix_db::inspect::{RawFile, RawPublication};
use trix_db::{Credentials, Manifest, Publication};
use trix_model::AttemptId;
use trix_model::state::{PublicationEvent, PublicationState};

use super::worker::BEGUN;
use super::{Granted, Model, Refusal};
use crate::breaks::Break;

/// The folder of a version beneath its share's root.
pub fn folder(target: &str, version: i64) -> String {
    if target.is_empty() { format!("v{version}") } else { format!("{target}/v{version}") }
}

impl Model {
    pub(super) fn prepare(
        &mut self,
        me: &Credentials,
        a: AttemptId,
        manifest: &Manifest,
    ) -> Granted<Publication> {
        let t = self.fenced(me, a)?;
        let (task, epoch, job) = (t.id, t.epoch, t.job_id);
        if let Some(id) = self.publication_in(task, &BEGUN) {
            let p = self.t.publications.get_mut(&id).ok_or(Refusal::NotFound)?;
            if p.manifest != *manifest {
                return Err(Refusal::Conflict("manifest_changed".into()));
            }
            if p.task_id == task {
                p.mover_epoch = epoch;
            }
            return self.publication_json(id).ok_or(Refusal::NotFound);
        }
        // A call that ran late, of an attempt that is ending.
        if let Some(id) = self.publication_in(task, &[PublicationState::Conflict])
            && let Some(p) = self.t.publications.get(&id)
            && (p.task_id, p.mover_epoch) == (task, epoch)
        {
            return Err(Refusal::Refused);
        }
        let (share, target) = (manifest.share.to_string(), manifest.target.to_string());
        let here = |p: &&RawPublication| p.share == share && p.target == target;
        let same = (self.t.publications.values().filter(here))
            .find(|p| p.current && p.manifest == *manifest)
            .map(|p| p.id);
        if let Some(id) = same {
            self.task_mut(task)?.publication_id = Some(id);
            return self.publication_json(id).ok_or(Refusal::NotFound);
        }
        let open = |p: &RawPublication| {
            matches!(p.state, PublicationState::Prepared | PublicationState::Moving)
        };
        if self.t.publications.values().filter(here).any(open) {
            return Err(Refusal::Refused);
        }
        let last = self.t.publications.values().filter(here).map(|p| p.version).max();
        let version = last.unwrap_or(0) + 1;
        self.ids.publication += 1;
        let id = self.ids.publication;
        let folder = folder(&target, version);
        let files: Vec<RawFile> = (manifest.files.iter())
            .map(|f| {
                let path = format!("{folder}/{}", f.name);
                RawFile {
                    publication_id: id,
                    share: share.clone(),
                    folded_path: path.to_lowercase(),
                    path,
                    size: f.size as i64,
                    sha256: f.sha256,
                }
            })
            .collect();
        let taken = |f: &RawFile| {
            (self.t.files.iter()).any(|o| o.share == f.share && o.folded_path == f.folded_path)
        };
        if files.iter().any(taken) {
            return Err(Refusal::Conflict("name_taken".into()));
        }
        self.t.files.extend(files);
        let row = RawPublication {
            id,
            share: share.clone(),
            target: target.clone(),
            version,
            task_id: task,
            epoch,
            mover_epoch: epoch,
            state: PublicationState::Prepared,
            current: false,
            manifest: manifest.clone(),
        };
        self.t.publications.insert(id, row);
        self.task_mut(task)?.publication_id = Some(id);
        let body = json!({ "publication": id, "share": share, "target": target,
            "version": version, "from": null, "to": PublicationState::Prepared });
        self.emit("publication.state", Some(job), Some(task), body);
        self.publication_json(id).ok_or(Refusal::NotFound)
    }

    /// The publication that the attempt owns.
    fn own_publication(&self, me: &Credentials, a: AttemptId) -> Granted<&RawPublication> {
        let t = self.fenced(me, a)?;
        let p = t.publication_id.and_then(|p| self.t.publications.get(&p));
        p.ok_or_else(|| Refusal::Conflict("not_prepared".into()))
    }

    pub(super) fn begin_move(&mut self, me: &Credentials, a: AttemptId) -> Granted<()> {
        let p = self.own_publication(me, a)?;
        let id = p.id;
        if p.state == PublicationState::Moving {
            if let Some(p) = self.t.publications.get_mut(&id) {
                p.mover_epoch = a.epoch.0;
            }
            return Ok(());
        }
        self.move_publication(id, PublicationEvent::Move)
    }

    pub(super) fn published(&mut self, me: &Credentials, a: AttemptId) -> Granted<()> {
        let p = self.own_publication(me, a)?;
        if p.state == PublicationState::Published {
            return Ok(());
        }
        let (id, share, target) = (p.id, p.share.clone(), p.target.clone());
        self.move_publication(id, PublicationEvent::Publish)?;
        let both = self.is_broken(Break::TwoCurrent);
        for p in self.t.publications.values_mut() {
            if p.share == share && p.target == target {
                p.current = p.id == id || both && p.current;
            }
        }
        Ok(())
    }

    pub(super) fn conflict(&mut self, me: &Credentials, a: AttemptId) -> Granted<()> {
        let p = self.own_publication(me, a)?;
        if p.state == PublicationState::Conflict {
            return Ok(());
        }
        let id = p.id;
        self.move_publication(id, PublicationEvent::Clash)?;
        self.task_mut(a.task.0)?.roll_forward = false;
        Ok(())
    }
}
