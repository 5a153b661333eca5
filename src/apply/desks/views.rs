//! Views of the state at one exact index, taken while apply continues: a view token passes through
//! the rings like an entry.

use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::pause::{Pause, WorkersWait};
use crate::apply::pipeline::worker::WorkerState;
use crate::contract::machine::StateMachine;
use crate::contract::view::{View, Views};
use crate::disk::holders::Holder;
use crate::entry::LogId;
use crate::error::{Poison, ViewError};
use crate::hook::Hook;
use crate::ranges::index_range::IndexRange;
use crate::sync::MutexGuard;

/// Takes a view of the state behind the entries that were given to the workers.
pub(in crate::apply) fn take_view<M: StateMachine>(
    pipeline: &Pipeline<M>,
) -> Result<View, ViewError> {
    let views = pipeline.machine().views(Hook::ENGINE).ok_or(ViewError::Unsupported)?;
    let _turn = pipeline.pauses().turn();
    pipeline.end_linger()?;
    // Take the hold before anything is copied that may refer to a segment.
    let hold = pipeline.log_desk().table().hold().of(pipeline.holding(Holder::View));
    pipeline.progress().poison.check()?;
    views.begin_view()?;
    let mut workers = WorkersWait::new(pipeline);
    while !push_view_token(pipeline)? {
        workers.wait(None);
    }
    pipeline.signals().notify_workers();
    while views.partitions_reached() < pipeline.workers().count() {
        pipeline.progress().poison.check()?;
        workers.wait(None);
    }
    Ok(views.finish_view(hold)?)
}

/// Runs `look` while nothing is applied, with the last entry in the state. Everything given to the
/// workers before is in the state. The workers continue when `look` releases their places, at the
/// latest when it returns.
pub(in crate::apply) fn while_paused<M: StateMachine, R>(
    pipeline: &Pipeline<M>,
    look: impl FnOnce(&M, Option<LogId>, PausedWorkers<'_, M>) -> R,
) -> Result<R, Poison> {
    let _turn = pipeline.pauses().turn();
    pipeline.end_linger()?;
    let pause = Pause::begin(pipeline);
    let appending = pause.appender_idle()?;
    let posts = pipeline.workers().take_posts();
    let applied = pipeline.applied_in(&appending);
    drop(appending);
    Ok(look(pipeline.machine(), applied, PausedWorkers { posts, _pause: pause }))
}

/// Puts the view token behind the entries given to the workers; returns false if there is no room
/// for it now.
fn push_view_token<M: StateMachine>(pipeline: &Pipeline<M>) -> Result<bool, Poison> {
    let mut appending = pipeline.log_desk().appending();
    pipeline.progress().poison.check()?;
    let unfed = appending.appender.unfed().front().map(|run| run.first);
    if !pipeline.workers().rings().have_room() {
        return Ok(false);
    }
    let committed = pipeline.progress().committed_mark().next();
    let first = unfed.map_or(committed, |first| first.min(committed));
    let token = IndexRange::view_token(first);
    pipeline.workers().rings().push(token).map_err(|poison| pipeline.signals().fail(poison))?;
    Ok(true)
}

/// Every worker's post. When it is dropped, the posts are free first, and then the workers are
/// given what came meanwhile.
#[derive(Debug)]
pub(crate) struct PausedWorkers<'e, M: StateMachine> {
    posts: Vec<MutexGuard<'e, WorkerState>>,
    _pause: Pause<'e, M>,
}

impl<M: StateMachine> Drop for PausedWorkers<'_, M> {
    fn drop(&mut self) {
        // The end of the pause locks the appender, which comes before the posts.
        self.posts.clear();
    }
}

/// Notes that the worker of `partition` has reached the view token.
pub(in crate::apply) fn reach_view_token(
    views: Option<&dyn Views>,
    partition: crate::ranges::partition::Partition,
) {
    if let Some(views) = views {
        views.reach_view_token(partition);
    }
}
