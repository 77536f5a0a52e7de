//! What somebody else changes in the database: prices, by hand or by another program. A trigger
//! notifies, and every server takes the changed quote out of its caches.

use std::pin::pin;
use std::time::Duration;

use escala_pool::PoolError;
use escala_pool::postgres::{ListenEvent, Listener};

use super::app::App;
use super::store::{Node, PRICES};

/// The pause before a server that cannot be listened to is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// Removes what changed until `stop`. An embedded file has no other writers.
pub(super) async fn follow(app: App, stop: impl Future<Output = ()>) {
    let Node::Postgres(server) = app.primary() else { return };
    let mut stop = pin!(stop);
    loop {
        let heard = async {
            let listener = server.pool().listen([PRICES]).await?;
            hear(&app, listener).await;
            Ok::<_, PoolError>(())
        };
        tokio::select! {
            () = &mut stop => return,
            result = heard => if let Err(error) = result {
                tracing::warn!(error = &error as &dyn std::error::Error, "no news of prices");
            },
        }
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn hear(app: &App, mut listener: Listener) {
    // What changed before is not told.
    app.remove_tag("market").await;
    while let Some(event) = listener.next().await {
        match event {
            ListenEvent::Notification(changed) => {
                app.remove_tag(&format!("quote:{}", changed.payload())).await;
                app.remove_tag("catalogue").await;
            }
            // Some were missed, and nobody knows which.
            _ => _ = app.remove_tag("market").await,
        }
    }
}
