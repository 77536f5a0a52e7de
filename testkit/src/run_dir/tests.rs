//! What a killed test leaves is cleared away; what a living one has is left alone.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::*;

#[test]
fn the_folder_of_a_dead_test_goes_with_its_processes() {
    let base = base().unwrap();
    let stale = base.join(format!("{PREFIX}stale-{}", std::process::id()));
    let mut leftover = {
        // Tests in other processes sweep too; not before all is in place.
        let _guard = lock(&base.join("base.lock")).unwrap();
        fs::create_dir(&stale).unwrap();
        File::create(stale.join(OWNER)).unwrap();
        Command::new("sleep").arg("600").current_dir(&stale).spawn().unwrap()
    };
    let mine = RunDir::new().unwrap();
    assert_eq!(leftover.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    assert!(!stale.exists());

    let other = RunDir::new().unwrap();
    assert!(mine.path().exists() && other.path() != mine.path());
    let gone = mine.path().to_owned();
    drop(mine);
    assert!(!gone.exists());
}
