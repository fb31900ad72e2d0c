//! The graph check finds each way in which a plan can be broken.

use trix_model::Key;
use trix_plan::graph::GraphError;
use trix_plan::task::{Plan, TaskSpec};
use trix_plan::{Delivery, validate};

use crate::fixture::{film, shipped};

fn plans() -> (Plan, Plan) {
    let profile = shipped("archive-and-ladder");
    film(1920, 1080, 480, &[Some("eng")]).plan(&profile, Delivery::Shares).unwrap()
}

fn broken(change: impl FnOnce(&mut Plan)) -> GraphError {
    let (first, mut second) = plans();
    change(&mut second);
    validate(&[&first, &second]).unwrap_err()
}

#[test]
fn a_whole_plan_passes_and_half_of_it_does_not() {
    let (first, second) = plans();
    validate(&[&first, &second]).unwrap();
    assert!(matches!(validate(&[&second]), Err(GraphError::Need { .. })));
}

#[test]
fn each_break_is_named() {
    let twice = broken(|p| p.tasks[1].name = p.tasks[0].name.clone());
    assert!(matches!(twice, GraphError::Name(_)), "{twice}");
    let unknown = broken(|p| p.tasks[0].needs.push("nothing".into()));
    assert!(matches!(unknown, GraphError::Need { .. }), "{unknown}");
    let circle = broken(|p| {
        let last = p.tasks.last().unwrap().name.clone();
        p.tasks[0].needs.push(last);
    });
    assert!(matches!(circle, GraphError::Need { .. }), "{circle}");
    let same = broken(|p| {
        let key = p.tasks[0].outputs[0].key;
        p.tasks[0].outputs[1].key = key;
    });
    assert!(matches!(same, GraphError::Output { .. }), "{same}");
    let unmade = broken(|p| {
        for task in &mut p.tasks {
            if let TaskSpec::Verify(verify) = &mut task.spec {
                verify.file = Key([0; 32]);
            }
        }
    });
    assert!(matches!(unmade, GraphError::Input { .. }), "{unmade}");
    let early = broken(|p| {
        let mux = p.tasks.iter_mut().find(|t| t.name.starts_with("mux/")).unwrap();
        mux.needs.retain(|n| !n.starts_with("audio/"));
    });
    assert!(matches!(early, GraphError::Input { .. }), "{early}");
    let unstaged = broken(|p| {
        let publish = p.tasks.iter_mut().find(|t| t.name == "publish/archive").unwrap();
        publish.needs.clear();
    });
    assert!(matches!(unstaged, GraphError::Staged { .. }), "{unstaged}");
    let engine = broken(|p| p.engine = "other".into());
    assert!(matches!(engine, GraphError::Engine { .. }), "{engine}");
}
