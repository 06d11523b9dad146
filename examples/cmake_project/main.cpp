// Draws sixteen images from a model or an ensemble and writes them as one PNG.
//
//     garments MODEL [OUT.png] [CONDITION ...]     a condition is a class (name or id) or a prompt

#include <atelier/atelier.h>

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

        std::vector<atelier::Condition> conditions;
        for (int i = 3; i < argc; ++i) conditions.emplace_back(std::string(argv[i]));
        const atelier::Samples samples = students.sample(conditions, 16, /*seed=*/1);

        for (const atelier::Condition& one : conditions)
            std::cout << std::get<std::string>(one) << " belongs to student " << students.route(one)
                      << "\n";
        atelier::write_png(argc > 2 ? argv[2] : "garments.png", samples);
    } catch (const atelier::Error& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
