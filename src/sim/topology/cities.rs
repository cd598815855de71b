//! Where nodes of a geographic topology can be.

use std::time::Duration;

/// Mean radius of the earth, in km (IUGG).
const EARTH_RADIUS_KM: f64 = 6_371.0;
/// Light in glass, in km/s: two thirds of 299,792 (a refractive index of 1.5).
const GLASS_KM_PER_S: f64 = 199_861.6;

/// A city.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct City {
    /// Its name.
    pub name: &'static str,
    /// Degrees north of the equator.
    pub latitude: f64,
    /// Degrees east of Greenwich.
    pub longitude: f64,
    /// How many of a hundred nodes are there, about.
    pub weight: f64,
}

impl City {
    /// Kilometres along the great circle, by the haversine formula.
    pub fn distance_km(&self, other: &Self) -> f64 {
        let (one, two) = (self.latitude.to_radians(), other.latitude.to_radians());
        let across = (other.longitude - self.longitude).to_radians();
        let half = ((two - one) / 2.0).sin().powi(2)
            + one.cos() * two.cos() * (across / 2.0).sin().powi(2);
        2.0 * EARTH_RADIUS_KM * half.sqrt().min(1.0).asin()
    }

    /// What light in glass needs for `stretch` times the great circle.
    pub fn delay_to(&self, other: &Self, stretch: f64) -> Duration {
        Duration::from_secs_f64(self.distance_km(other) * stretch / GLASS_KM_PER_S)
    }
}

const fn city(name: &'static str, latitude: f64, longitude: f64, weight: f64) -> City {
    City {
        name,
        latitude,
        longitude,
        weight,
    }
}

/// Cities with large exchanges or data centres; places as in any gazetteer, to a tenth of a degree. The weights follow
/// the shares of continents among reachable Bitcoin nodes as public crawls give them (about a third in North America,
/// half in Europe, the rest in Asia, Oceania, South America and Africa); within a continent they are a choice.
#[rustfmt::skip] // one row each
pub const CITIES: &[City] = &[
    city("Ashburn", 39.0, -77.5, 9.0),
    city("New York", 40.7, -74.0, 5.0),
    city("Chicago", 41.9, -87.6, 3.0),
    city("Dallas", 32.8, -96.8, 3.0),
    city("San Francisco", 37.8, -122.4, 4.0),
    city("Seattle", 47.6, -122.3, 3.0),
    city("Los Angeles", 34.1, -118.2, 3.0),
    city("Toronto", 43.7, -79.4, 3.0),
    city("Frankfurt", 50.1, 8.7, 12.0),
    city("Falkenstein", 50.5, 12.4, 7.0),
    city("Amsterdam", 52.4, 4.9, 7.0),
    city("London", 51.5, -0.1, 5.0),
    city("Paris", 48.9, 2.4, 5.0),
    city("Helsinki", 60.2, 24.9, 4.0),
    city("Zurich", 47.4, 8.5, 2.0),
    city("Stockholm", 59.3, 18.1, 2.0),
    city("Warsaw", 52.2, 21.0, 2.0),
    city("Madrid", 40.4, -3.7, 1.5),
    city("Singapore", 1.3, 103.8, 4.0),
    city("Tokyo", 35.7, 139.7, 3.0),
    city("Hong Kong", 22.3, 114.2, 2.0),
    city("Seoul", 37.6, 127.0, 1.5),
    city("Mumbai", 19.1, 72.9, 1.0),
    city("Dubai", 25.2, 55.3, 0.5),
    city("Sydney", -33.9, 151.2, 2.5),
    city("Auckland", -36.8, 174.8, 0.5),
    city("Sao Paulo", -23.5, -46.6, 2.0),
    city("Buenos Aires", -34.6, -58.4, 1.0),
    city("Johannesburg", -26.2, 28.0, 1.0),
    city("Nairobi", -1.3, 36.8, 0.5),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static City {
        CITIES
            .iter()
            .find(|city| city.name == name)
            .expect("it is in the table")
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        for (one, other, kilometres) in [
            ("London", "New York", 5_570.0),
            ("Frankfurt", "Singapore", 10_260.0),
            ("Tokyo", "San Francisco", 8_270.0),
            ("Sydney", "Sao Paulo", 13_350.0),
        ] {
            let distance = named(one).distance_km(named(other));
            assert!(
                (distance / kilometres - 1.0).abs() < 0.01,
                "{one}-{other}: {distance}"
            );
            assert_eq!(named(one).distance_km(named(one)), 0.0);
        }
        let delay = named("London").delay_to(named("New York"), 1.0);
        assert_eq!(delay.as_millis(), 27);
    }
}
