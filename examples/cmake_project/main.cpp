// Draws sixteen samples from a model or an ensemble: images as one PNG, points as lines of text.
//
//     garments MODEL [OUT.png] [CONDITION ...]     a condition is a class (name or id) or a prompt

#include <atelier/atelier.h>

#include <algorithm>
#include <iostream>

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "usage: " << argv[0] << " MODEL [OUT.png] [CONDITION ...]\n";
        return 2;
    }
    try {
        atelier::Pipeline students(argv[1]);
        const atelier::Information& model = students.information();
        std::cout << "atelier " << atelier::version() << ": " << model.students << " students, "
                  << model.classes << " classes, " << model.width << " x " << model.height
                  << " pixels, engine " << model.engine << "\n";

        std::vector<atelier::Condition> conditions(argv + std::min(argc, 3), argv + argc);
        if (conditions.empty() && model.conditions == atelier::Information::Conditions::prompts)
            conditions = {"a large red bag on white", "two small white sneakers on black"};
        for (const atelier::Condition& one : conditions)
            std::cout << std::get<std::string>(one) << " belongs to student " << students.route(one)
                      << "\n";

        const atelier::Samples samples = students.sample(conditions, 16, /*seed=*/1);
        if (model.samples == atelier::Information::Samples::images)
            atelier::write_png(argc > 2 ? argv[2] : "garments.png", samples);
        for (const float coordinate : samples.points) std::cout << coordinate << "\n";
    } catch (const atelier::Error& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
